import itertools
from math import prod

import pytest
import torch
from parameters import count_parameters
from torch import nn

from trials.model.mlp import LinearClassifier, MlpClassifier
from trials.recipe import Norm


@pytest.mark.parametrize(("shape", "outputs"), [((1, 8, 8), 10), ((3, 5, 7), 4), ((13,), 1)])
def test_sizes(shape: tuple[int, ...], outputs: int) -> None:
    inputs = prod(shape)
    assert count_parameters(LinearClassifier(shape, outputs)) == (inputs + 1) * outputs
    norms: tuple[Norm, ...] = ("batch", "layer", "group", "none")
    for depth, norm in itertools.product((1, 3), norms):
        hidden = (inputs + 1) * 24 + (depth - 1) * 25 * 24 + (0 if norm == "none" else depth * 2 * 24)
        assert count_parameters(MlpClassifier(shape, outputs, 24, depth, norm)) == hidden + 25 * outputs


def test_a_hidden_layer_is_linear_norm_relu_dropout() -> None:
    torch.manual_seed(0)
    model = MlpClassifier((6,), 3, width=8, depth=2, norm="layer", dropout=0.5)
    rows = torch.randn(4, 6)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    values = rows
    for linear in linears[:-1]:
        values = nn.functional.layer_norm(values @ linear.weight.T + linear.bias, (8,)).relu()
    torch.testing.assert_close(model.eval()(rows), values @ linears[-1].weight.T + linears[-1].bias)
    kinds = [type(part).__name__ for part in model.layers[0].children()]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Dropout"]


def test_input_dropout_drops_inputs_and_hidden_dropout_hidden_units() -> None:
    torch.manual_seed(0)
    seen: dict[str, torch.Tensor] = {}
    model = MlpClassifier((50,), 3, width=200, depth=1, dropout=0.5, input_dropout=0.2)
    model.layers.register_forward_pre_hook(lambda _module, args: seen.update(inputs=args[0]))
    model.head.register_forward_pre_hook(lambda _module, args: seen.update(hidden=args[0]))
    rows = torch.ones(400, 50)
    model(rows)
    assert set(seen["inputs"].unique().tolist()) == {0.0, 1.25}
    # of 20000 draws, the share that is dropped has standard error sqrt(0.2 * 0.8 / 20000) = 0.0028
    assert abs((seen["inputs"] == 0).float().mean().item() - 0.2) < 5 * 0.0028
    with torch.no_grad():
        alive = model.layers[0][0](seen["inputs"]) > 0  # what the ReLU lets through
    kept = seen["hidden"][alive] != 0
    assert abs(kept.float().mean().item() - 0.5) < 5 * (0.25 / kept.numel()) ** 0.5
    model.eval()(rows)
    assert torch.equal(seen["inputs"], rows)
