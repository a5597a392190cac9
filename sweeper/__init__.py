"""Hyperparameter sweeps that end in one averaged best model, with the evidence for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trials import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    # Imported at first use: the command line answers `--help` without loading torch.
    if name == "load_model":
        from trials import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
