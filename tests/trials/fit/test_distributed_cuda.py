"""What `test_distributed.py` shows with gloo, with NCCL, as far as one GPU can: one rank. Skipped without a GPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import FileStore

from trials.errors import TrialError
from trials.fit.distributed import Averaged, Ranks, with_shared_statistics
from trials.parallel import process_group, rank_devices

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with process_group(Ranks(0, 1), GPU, FileStore(str(tmp_path_factory.mktemp("rank") / "store"), 1)):
        yield


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).to(GPU)


def images() -> torch.Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(GPU)


@pytest.mark.usefixtures("_one_rank")
def test_tensors_go_over_nccl_and_objects_over_gloo() -> None:
    values = torch.arange(3.0, device=GPU)
    dist.all_reduce(values)
    assert values.tolist() == [0.0, 1.0, 2.0]
    box = [{"a": 1}]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    assert box == [{"a": 1}]


@pytest.mark.usefixtures("_one_rank")
def test_the_mean_gradient_of_one_rank_is_its_own_over_gathered_batches() -> None:
    plain = model()
    twin = copy.deepcopy(plain)
    averaged = Averaged(twin, twin, GPU)
    for part, is_last in ((images()[:8], False), (images()[8:], True)):
        plain(part).square().mean().backward()
        with averaged.batch(is_last):
            averaged(part).square().mean().backward()
    for found, wanted in zip(twin.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)


@pytest.mark.usefixtures("_one_rank")
def test_batch_norm_of_several_ranks_is_that_of_one_batch() -> None:
    plain = model()
    shared = with_shared_statistics(copy.deepcopy(plain), GPU, Ranks(0, 2))
    assert isinstance(shared[1], nn.SyncBatchNorm)  # type: ignore[index]
    assert shared.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(shared(images()), plain(images()))
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], tensor)
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in with_shared_statistics(plain, GPU, Ranks()).modules())


def test_each_rank_has_a_gpu_of_its_own() -> None:
    count = torch.cuda.device_count()
    assert rank_devices(count, 1000, GPU) == [torch.device("cuda", index) for index in range(count)]
    with pytest.raises(TrialError, match=f"found {count + 1} processes, expected at most {count}, one a GPU"):
        rank_devices(count + 1, 1000, GPU)
