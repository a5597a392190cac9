"""Averages of weights, and the batch norm statistics that each average needs anew."""
