"""Rank r of n: what the processes of one trial do together, each with a part of every batch.

Who started the processes, and on which machines, is not known here: only that torch's default process group is up. All
ranks run the same straight line, and meet in the functions of :class:`Ranks`; with a single rank these do nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trials.errors import TrialError
from trials.locate import one_line

_T = TypeVar("_T")
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of a batch that one rank trains on."""

    rows: Tensor
    copies: int = 1
    """How many ranks have these same rows: an example counts ``1 / copies`` on each."""

    def share(self, batch: int) -> float:
        """The share of a batch of ``batch`` rows that this rank stands for; the shares of all ranks sum to 1."""
        return len(self.rows) / (self.copies * batch)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one trial.

    Rank 0 leads: it alone reads and writes files and talks to the outside.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that talks to the outside."""
        return self.rank == 0

    @property
    def place(self) -> tuple[str | int, ...]:
        """What a seed's place ends in, so that each rank draws its own dropout and augmentation."""
        return () if self.size == 1 else ("rank", self.rank)

    def part(self, rows: Tensor) -> Part:
        """This rank's contiguous part of a batch's ``rows`` (N,), the same on all ranks.

        A batch with fewer than two rows a rank is every rank's whole: no rank is left without rows, and none takes
        batch norm statistics of a single one.

        >>> [Ranks(rank, 2).part(torch.arange(7)).rows.tolist() for rank in (0, 1)]
        [[0, 1, 2, 3], [4, 5, 6]]
        >>> Ranks(1, 2).part(torch.arange(3))
        Part(rows=tensor([0, 1, 2]), copies=2)
        """
        if self.size == 1:
            return Part(rows)
        if len(rows) < 2 * self.size:
            return Part(rows, copies=self.size)
        return Part(torch.tensor_split(rows, self.size)[self.rank])

    def spans(self, count: int, batch_size: int) -> list[tuple[int, int]]:
        """Where each rank's part of ``count`` examples starts and stops, in whole batches.

        A batch has the examples that it would have with one rank, and so gives the same numbers.

        >>> Ranks(0, 2).spans(10, 4), Ranks(0, 2).spans(3, 4)
        ([(0, 8), (8, 10)], [(0, 3), (3, 3)])
        """
        batches = -(-count // batch_size)
        ends = [min(count, -(-batches * (rank + 1) // self.size) * batch_size) for rank in range(self.size)]
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def sum_up(self, values: Tensor) -> Tensor:
        """Replace ``values``, in place, by their sums over all ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, decide: Callable[[], _T]) -> _T:
        """What rank 0 decides, on all ranks; the others do not call ``decide``."""
        if self.size == 1:
            return decide()
        box = [decide() if self.leads else None]
        dist.broadcast_object_list(box, src=0, device=_CPU)
        decided: _T = box[0]  # type: ignore[assignment]
        return decided

    def exchange(self, values: Tensor, spans: Iterable[tuple[int, int]]) -> None:
        """Fill ``values`` (N, ...), of which each rank has made the rows of its span."""
        if self.size > 1:
            for rank, (start, stop) in enumerate(spans):
                if stop > start:
                    dist.broadcast(values[start:stop], src=rank)

    def share_weights(self, model: nn.Module) -> None:
        """Give all ranks the weights of rank 0, which alone has read them from files; ``model`` is on the host."""
        weights = self.agree(model.state_dict)
        if not self.leads:
            model.load_state_dict(weights)

    def share_buffers(self, models: Iterable[nn.Module]) -> None:
        """Give all ranks the buffers of rank 0: its batch norm statistics are the trial's."""
        if self.size > 1:
            for model in models:
                for buffer in model.buffers():
                    dist.broadcast(buffer, src=0)


ALONE = Ranks()


class _Called(nn.Module):
    """The parameters of a model with whatever calls it, compiled or not."""

    def __init__(self, model: nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._call = call

    def forward(self, inputs: Tensor) -> Tensor:
        return self._call(inputs)


class Averaged:
    """A model whose gradients become the mean over all ranks in each backward pass.

    Made anew for each epoch: which parameters learn may change between epochs, and the order in which gradients are
    summed must not depend on the epochs before.
    """

    def __init__(self, model: nn.Module, call: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._model = model
        self._parallel = DistributedDataParallel(
            _Called(model, call), device_ids=[device] if device.type == "cuda" else None
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self._parallel(inputs)
        return outputs

    @contextlib.contextmanager
    def batch(self, is_last: bool) -> Iterator[None]:
        """Around a batch's forward and backward pass: gradients are averaged in the ``is_last`` one before an update.

        Raises :class:`TrialError` for a parameter without a gradient, which the others would wait for.
        """
        if not is_last:
            with self._parallel.no_sync():
                yield
            return
        yield
        try:
            self._parallel._check_reducer_finalized()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise TrialError(self._unused(error)) from error

    def _unused(self, error: RuntimeError) -> str:
        learning = [(name, tensor) for name, tensor in self._model.named_parameters() if tensor.requires_grad]
        names = [name for name, tensor in learning if tensor.grad is None]
        found = f"{', '.join(names[:3])} had no part in the loss of a batch" if names else one_line(error)
        return (
            f"train.data_parallel: {found}; expected every parameter that learns to have one in every batch; "
            "freeze or remove it, or set train.data_parallel to 1"
        )


def with_shared_statistics(model: nn.Module, device: torch.device, ranks: Ranks) -> nn.Module:
    """The model with batch norm over the examples of all ranks, which torch has for GPUs only.

    On a CPU each rank normalises by its own part of a batch.
    """
    if ranks.size == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted
