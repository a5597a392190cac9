"""Examples: where they come from, how they are split, varied and turned into tensors."""

from trials.data.checks import Column, Source
from trials.data.preprocess import InputSpec, Preprocess
from trials.data.sources import load_source
from trials.data.splits import Split, Splits, load_splits
from trials.data.table import TablePreprocess
from trials.data.target import Target
from trials.data.text import TextPreprocess

# Each kind of preprocessing is imported here, or a package of that kind could not be read back.
__all__ = [
    "Column",
    "InputSpec",
    "Preprocess",
    "Source",
    "Split",
    "Splits",
    "TablePreprocess",
    "Target",
    "TextPreprocess",
    "load_source",
    "load_splits",
]
