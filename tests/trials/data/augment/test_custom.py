from pathlib import Path

import pytest
import torch
from small_images import image_splits, noise, seeded

from trials.data.augment.custom import build_custom
from trials.errors import DataError
from trials.recipe import CustomAugment

MODULE = """\
import torch

def add_noise(inputs, generator, spread=1.0):
    return inputs + spread * torch.randn(inputs.shape, generator=generator)

def in_place(inputs, generator):
    return inputs.zero_()

def as_double(inputs, generator):
    return inputs.double()

def cut(inputs, generator):
    return inputs[:, :, 1:]

def nothing(inputs, generator):
    inputs + 1

def fails(inputs, generator):
    raise ValueError("not\\n  today")

a_number = 5
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "augments_of_ones_own.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def build(name: str, **arguments: object):
    section = CustomAugment(name="custom", function=f"augments_of_ones_own:{name}", arguments=arguments)
    return build_custom(section, image_splits(noise(4, dtype=torch.float32)))


def test_the_function_is_called_with_the_batch_the_generator_and_the_arguments() -> None:
    inputs = torch.zeros(5, 3)
    changed = build("add_noise", spread=2.0)(inputs, torch.arange(5), seeded(4))
    assert torch.equal(changed, 2.0 * torch.randn(5, 3, generator=seeded(4)))


def test_a_function_that_writes_to_its_argument_writes_to_a_copy() -> None:
    inputs = noise(4, dtype=torch.float32)
    changed = build("in_place")(inputs, torch.arange(4), seeded())
    assert not changed.any()
    assert torch.equal(inputs, noise(4, dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("as_double", "returned float64 of shape (4, 3, 12, 9) on cpu, expected float32 of shape (4, 3, 12, 9) on cpu"),
        ("cut", "returned float32 of shape (4, 3, 11, 9) on cpu, expected float32 of shape (4, 3, 12, 9) on cpu"),
        ("nothing", "returned NoneType, expected float32 of shape (4, 3, 12, 9) on cpu"),
    ],
)
def test_an_answer_of_another_kind_is_one_line(name: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        build(name)(noise(4, dtype=torch.float32), torch.arange(4), seeded())
    assert str(caught.value) == f"data.augment: custom: augments_of_ones_own:{name}: {words}, as it was given"


def test_a_function_that_fails_says_why_in_one_line() -> None:
    with pytest.raises(DataError) as caught:
        build("fails")(torch.zeros(2, 3), torch.arange(2), seeded())
    assert str(caught.value) == "data.augment: custom: augments_of_ones_own:fails: raised ValueError: not today"


def test_what_is_not_there_or_no_function_is_said_before_training() -> None:
    with pytest.raises(
        DataError, match=r"^data.augment: custom: augments_of_ones_own:add_nois: .* mean 'add_noise'\?$"
    ):
        build("add_nois")
    with pytest.raises(
        DataError, match=r"^data.augment: custom: augments_of_ones_own:a_number is int, expected a func"
    ):
        build("a_number")
