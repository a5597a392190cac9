"""Sweeps over trials."""
