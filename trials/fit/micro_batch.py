"""How examples are cut into batches, and a batch into chunks that fit into memory."""

from __future__ import annotations

from trials.recipe import Recipe, Train
from trials.recipe.misfits import misfits


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """The sizes of the batches of ``count`` examples; a last batch of one joins the one before it.

    Batch norm cannot train on a single example.

    >>> batch_sizes(9, 4), batch_sizes(10, 4)
    ([4, 5], [4, 4, 2])
    """
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def chunk_sizes(count: int, smallest: int, section: Train) -> list[int]:
    """The sizes of the chunks in which ``count`` examples of a batch pass through the model.

    With several ranks, ``smallest`` is how many examples of the batch any of them has: all have as many chunks, since
    batch norm over all ranks meets in each. One more than that joins the last chunk, as a last one alone does.

    >>> chunk_sizes(8, 8, Train(micro_batch=3)), chunk_sizes(8, 8, Train())
    ([3, 3, 2], [8])
    >>> chunk_sizes(5, 4, Train(micro_batch=2)), chunk_sizes(4, 4, Train(micro_batch=2))
    ([2, 3], [2, 2])
    """
    if section.micro_batch is None:
        return [count]
    sizes = batch_sizes(smallest, section.micro_batch)
    sizes[-1] += count - smallest
    return sizes


def smaller_micro_batch(recipe: Recipe, processes: int = 1) -> int | None:
    """Half of what passes through the model at once now; ``None`` if nothing smaller can be trained.

    ``processes`` share each batch where the recipe does not say how many do.

    >>> smaller_micro_batch(Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "linear"}}))
    64
    """
    section = recipe.train
    part = -(-section.batch_size // (section.data_parallel or processes))
    now = part if section.micro_batch is None else min(section.micro_batch, part)
    if now == 1:
        return None
    smaller = now // 2
    changed = recipe.model_copy(update={"train": section.model_copy(update={"micro_batch": smaller})})
    return None if any(True for _ in misfits(changed)) else smaller
