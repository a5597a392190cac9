"""Soups across studies: one model made of the best weights of several that began from the same ones.

It reads the catalog and writes nothing to it: what it makes is handed over, with all that was tried, and belongs to no
study.
"""
