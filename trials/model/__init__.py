"""Models: small built-ins, and any importable factory."""

from trials.model.build import build_model

__all__ = ["build_model"]
