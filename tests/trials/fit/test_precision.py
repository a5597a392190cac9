"""F9: which arithmetic runs, and that torch's settings are left as they were."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from trials.fit.precision import AUTOCAST_DTYPES, arithmetic, autocast, loss_scaler

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_matrix_products_run_in_the_named_type_inside_and_in_float32_after(
    precision: str, expected: torch.dtype
) -> None:
    matrix = torch.ones(2, 2)
    with autocast(precision, CPU):
        assert (matrix @ matrix).dtype == expected
    assert (matrix @ matrix).dtype == torch.float32


@pytest.mark.parametrize("precision", sorted(AUTOCAST_DTYPES))
def test_only_fp16_scales_the_loss(precision: str) -> None:
    scaler = loss_scaler(precision, CPU)
    assert scaler.scale(torch.tensor(1.0)).item() == (65536.0 if precision == "fp16" else 1.0)


def settings() -> list[object]:
    backends: Any = torch.backends
    return [
        *(mode.fp32_precision for mode in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)),
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    ]


@pytest.mark.parametrize("precision", sorted(AUTOCAST_DTYPES))
@pytest.mark.parametrize("fails", [False, True])
def test_settings_of_a_gpu_hold_inside_and_are_put_back(
    monkeypatch: pytest.MonkeyPatch, precision: str, fails: bool
) -> None:
    """The settings exist without a GPU too."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, inside = settings(), []

    def work() -> None:
        with arithmetic(precision, torch.device("cuda", 0)):
            inside.extend(settings())
            if fails:
                raise ArithmeticError("planted")

    with pytest.raises(ArithmeticError) if fails else contextlib.nullcontext():
        work()
    mode = "tf32" if precision == "tf32" else "ieee"
    assert inside == [mode, mode, mode, True, False, True, True, False]
    assert settings() == before


def test_nothing_is_set_on_a_cpu() -> None:
    before = settings()
    with arithmetic("tf32", CPU):
        assert settings() == before
