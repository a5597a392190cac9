"""F9: which arithmetic runs, and that torch's settings are left as they were."""

from __future__ import annotations

import pytest
import torch

from trials.fit.precision import AUTOCAST_DTYPES, autocast, loss_scaler

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
