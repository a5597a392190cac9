"""Examples: where they come from, how they are split, varied and turned into tensors."""

from trials.data.checks import Source
from trials.data.preprocess import Preprocess
from trials.data.sources import load_source
from trials.data.splits import Split, Splits, load_splits

__all__ = ["Preprocess", "Source", "Split", "Splits", "load_source", "load_splits"]
