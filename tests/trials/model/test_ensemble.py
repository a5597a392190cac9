"""An ensemble answers with the mean of its members' probabilities, or of their values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trials.model.ensemble import Ensemble
from trials.recipe import Bce, Focal


class Says(nn.Module):
    """Gives the same outputs (N, K) whatever it is asked."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, _inputs: Tensor) -> Tensor:
        return self.outputs


OUTPUTS = [torch.tensor([[1.0, -2.0, 0.5], [0.0, 4.0, 1.0]]), torch.tensor([[-3.0, 0.2, 0.1], [2.0, 2.0, -1.0]])]
ASKED = torch.zeros(2, 1)


def probabilities(outputs: Tensor) -> Tensor:
    return outputs.double().exp() / outputs.double().exp().sum(dim=1, keepdim=True)


def test_a_softmax_of_its_answers_is_the_weighted_mean_of_the_members() -> None:
    model = Ensemble([Says(each) for each in OUTPUTS], [None, None], [3.0, 1.0], "classification")
    expected = 0.75 * probabilities(OUTPUTS[0]) + 0.25 * probabilities(OUTPUTS[1])
    found = model(ASKED)
    torch.testing.assert_close(found.softmax(dim=1).double(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(2))  # log-probabilities already


def test_each_member_is_read_by_its_own_loss() -> None:
    """Under bce an output is one class against all others: sigmoids, scaled to a sum of 1."""
    model = Ensemble(
        [Says(each) for each in OUTPUTS], [Bce(name="bce"), Focal(name="focal")], [0.5, 0.5], "classification"
    )
    sigmoids = OUTPUTS[0].double().sigmoid()
    expected = (sigmoids / sigmoids.sum(dim=1, keepdim=True) + probabilities(OUTPUTS[1])) / 2
    torch.testing.assert_close(model(ASKED).softmax(dim=1).double(), expected, rtol=1e-6, atol=1e-7)


def test_values_are_averaged_as_they_are() -> None:
    model = Ensemble([Says(torch.tensor([[2.0]])), Says(torch.tensor([[-1.0]]))], [None, None], [2, 1], "regression")
    assert model(ASKED).tolist() == [[pytest.approx(1.0)]]


def test_certainty_leaves_no_infinite_loss() -> None:
    """Both give the first class less than the smallest float32."""
    far = torch.tensor([[0.0, 500.0]])
    model = Ensemble([Says(far), Says(far)], [None, None], [0.5, 0.5], "classification")
    assert model(ASKED).tolist() == [[pytest.approx(-500.0), pytest.approx(0.0)]]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_it_averages_in_full_precision_under_autocast(task: str) -> None:
    outputs = [torch.tensor([[1.001]]), torch.tensor([[2.003]])] if task == "regression" else OUTPUTS
    model = Ensemble([Says(each) for each in outputs], [None, None], [0.3, 0.7], task)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(ASKED)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model(ASKED))


def test_its_state_is_that_of_its_members() -> None:
    model = Ensemble([nn.Linear(1, 2), nn.Linear(1, 2)], [None, None], [0.5, 0.5], "classification")
    assert set(model.state_dict()) == {f"members.{i}.{name}" for i in range(2) for name in ("weight", "bias")}
