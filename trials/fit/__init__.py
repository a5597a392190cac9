"""Fitting a model: optimizer, schedule, precision, one epoch of steps, evaluation, early stopping."""
