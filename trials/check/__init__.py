"""Checks before and beside a training: what a learning rate does, and whether model and data are sound."""
