"""F10: several ranks train like one on the same batches; what one of them meets, all meet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_at_work import (
    CPU,
    MODELS,
    SEED,
    Team,
    Trained,
    all_of,
    begin_from_files,
    decide,
    draw_dropout,
    gather_twice,
    judge,
    some_rows,
    team,
    train,
)
from small_splits import recipe_of
from torch import Tensor
from torch.nn import functional

from trials.checkpoint import write_weights
from trials.data import Split
from trials.errors import Diverged, TrialError
from trials.fit.distributed import ALONE, Ranks
from trials.fit.micro_batch import batch_sizes
from trials.fit.step import Variation
from trials.recipe import Recipe
from trials.seed import generator

SIZE = 3
BATCH_SIZE = 4
WHOLE = SIZE * BATCH_SIZE
MIXUP = {"mix": "mixup", "mix_alpha": 1.0}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team(SIZE, tmp_path_factory.mktemp("ranks") / "store") as made:
        yield made


def alike(states: list[dict[str, Tensor]]) -> bool:
    """Whether all ranks have the same, bit for bit."""
    return all(torch.equal(state[name], tensor) for state in states[1:] for name, tensor in states[0].items())


def check_as_one(ranks: Team, split: Split, section: dict[str, Any], *more: Any) -> Trained:
    """Train for three epochs in all ranks, and in this process alone."""
    made: list[Trained] = ranks.run(train, "plain", split, {"batch_size": WHOLE, **section}, 3, *more)
    alone = train(ALONE, "plain", split, {"batch_size": WHOLE, **section}, 3, *more)
    assert alike([one.state for one in made])
    check_close(made[0].state, alone.state)
    for one in made:
        assert one.epochs == made[0].epochs
        assert one.steps == alone.steps
    for together, by_one in zip(made[0].epochs, alone.epochs, strict=True):
        assert together.metrics() == pytest.approx(by_one.metrics(), rel=1e-5)
    for kind, average in alone.averages.items():
        assert alike([one.averages[kind] for one in made])
        check_close(made[0].averages[kind], average)
    return made[0]


def check_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "last"),
    [
        (60, 12),  # even
        (67, 7),  # parts of 3, 2 and 2
        (64, 4),  # fewer than two a rank
        (62, 2),  # fewer than one a rank
        (61, 13),  # a single example, which joins the batch before
        (5, 5),  # a single batch, and that a small one
    ],
)
def test_three_ranks_train_as_one_on_the_same_batches(ranks: Team, count: int, last: int) -> None:
    assert batch_sizes(count, WHOLE)[-1] == last
    check_as_one(ranks, some_rows(count), {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}})


def test_gathered_batches_weights_of_classes_and_clipping_stay_exact(ranks: Team) -> None:
    section = {
        "optimizer": {"name": "sgd", "lr": 0.2},
        "accumulate": 2,  # groups of 24, 24 and 19 examples
        "loss": {"name": "cross_entropy", "class_weights": "balanced", "label_smoothing": 0.1},
        "clip_norm": 0.3,
        "ema": {"decay": 0.9},
        "swa": {"start": 0.3},
    }
    made = check_as_one(ranks, some_rows(67), section)
    assert made.epochs[0].gradient_norm > 0.3
    assert made.averages.keys() == {"ema", "swa"}


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
@pytest.mark.parametrize("count", [67, 62])
def test_parts_in_chunks_train_as_one_without(ranks: Team, micro_batch: int, count: int) -> None:
    """Parts of 4 and last ones of 3, 2 and 2, or of two examples that all ranks share."""
    section = {"optimizer": {"name": "sgd", "lr": 0.1}, "accumulate": 2}
    chunked = check_as_one(ranks, some_rows(count), section | {"micro_batch": micro_batch})
    whole = train(ALONE, "plain", some_rows(count), {"batch_size": WHOLE, **section}, 3)
    check_close(chunked.state, whole.state)


def test_a_stage_that_thaws_joins_in(ranks: Team) -> None:
    stage = {"weights": "w.safetensors", "freeze": ["inner.0"], "unfreeze_after_epochs": 1}
    model = {"build": "linear", "pretrained": stage}
    check_as_one(ranks, some_rows(50), {"optimizer": {"name": "sgd", "lr": 0.1}}, None, model)


def test_each_rank_blends_its_own_examples_and_each_example_counts_the_same(ranks: Team) -> None:
    """One update, computed here from what each rank draws."""
    split, lr = some_rows(7), 0.5
    made: list[Trained] = ranks.run(
        train, "plain", split, {"batch_size": WHOLE, "optimizer": {"name": "sgd", "lr": lr}}, 1, MIXUP
    )
    torch.manual_seed(0)
    model = MODELS["plain"]()
    recipe = recipe_of({}, MIXUP, seed=SEED)
    order = torch.randperm(7, generator=generator(CPU, SEED, "order", 1))
    loss, lams = torch.zeros(()), set()
    for rank, rows in enumerate(torch.tensor_split(order, SIZE)):
        vary = Variation(all_of(split), recipe, CPU, Ranks(rank, SIZE))
        inputs, targets, blend = vary(rows)
        assert blend is not None
        other, lam = blend
        outputs = model(inputs).float()
        of_rows = [functional.cross_entropy(outputs, labels, reduction="sum") for labels in (targets, other)]
        loss = loss + (lam * of_rows[0] + (1 - lam) * of_rows[1]) / 7
        lams.add(lam)
    assert len(lams) == SIZE
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= lr * parameter.grad
    check_close(made[0].state, model.state_dict())
    assert made[0].epochs[0].loss == pytest.approx(loss.item(), rel=1e-6)


def test_ranks_meet_only_in_the_last_batch_before_an_update(ranks: Team) -> None:
    """The gradient of ``w x`` is x: of a rank's own rows until then, and of the mean over all ranks afterwards."""
    batches = (torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[0.0], [30.0], [60.0]]))
    made = ranks.run(gather_twice, batches)
    assert [first.item() for first, _ in made] == [1.0, 2.0, 6.0]
    assert [last.item() for _, last in made] == [33.0] * SIZE


def test_each_rank_drops_its_own(ranks: Team) -> None:
    drawn: list[Tensor] = ranks.run(draw_dropout, "epoch")
    assert len({tuple(row.tolist()) for row in drawn}) == SIZE
    assert alike([{"drawn": row} for row in drawn[:1] + ranks.run(draw_dropout, "epoch")[:1]])


def test_the_first_rank_s_batch_norm_statistics_are_the_trial_s(ranks: Team) -> None:
    split = some_rows(13)
    section = {"batch_size": WHOLE + 3, "ema": {"decay": 0.5, "warmup": False}, "swa": {"start": 0.0}}
    made: list[Trained] = ranks.run(train, "normed", split, section)
    assert alike([one.state for one in made])
    assert alike([one.averages["ema"] for one in made])
    assert alike([one.averages["swa"] for one in made])
    torch.manual_seed(0)
    model = MODELS["normed"]()
    rows = torch.tensor_split(torch.randperm(13, generator=generator(CPU, SEED, "order", 1)), SIZE)[0]
    hidden = model[0](split.inputs[rows])  # type: ignore[index]
    torch.testing.assert_close(made[0].state["1.running_mean"], 0.1 * hidden.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made[0].state["1.running_var"], 0.9 + 0.1 * hidden.var(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [50, 17, 10, 3])
def test_shared_evaluation_gives_the_bits_of_one_rank(ranks: Team, count: int) -> None:
    split = some_rows(count)
    alone = judge(ALONE, "plain", split, BATCH_SIZE)
    assert alone.count == count
    assert ranks.run(judge, "plain", split, BATCH_SIZE) == [alone] * SIZE


def test_files_of_other_trials_are_read_by_rank_0_for_all(ranks: Team, tmp_path: Path) -> None:
    content: dict[str, Any] = {"data": {"source": "digits"}, "model": {"build": "linear"}}
    draws, kept = torch.Generator().manual_seed(0), []
    for number in range(2):
        weights = {"1.weight": torch.randn(10, 64, generator=draws), "1.bias": torch.randn(10, generator=draws)}
        path = tmp_path / f"{number}.safetensors"
        write_weights(path, weights)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kept.append((weights, {"path": f"../{path.name}", "sha256": digest, "name": f"raw of trial {number}"}))
    (first, start), (taught, member) = kept
    teacher = {"members": [{"weights": member, "recipe": content}]}
    recipe = Recipe.model_validate({**content, "start": {"weights": start, "epochs": 1}, "teacher": teacher})
    for model, its_teacher, notes in ranks.run(begin_from_files, recipe, tmp_path / "0002"):
        assert alike([model, first])
        assert alike([taught, {name.removeprefix("members.0."): tensor for name, tensor in its_teacher.items()}])
        assert notes == ("begun from raw of trial 0, into which 1 epochs went",)


def test_rank_0_decides_for_all(ranks: Team) -> None:
    assert ranks.run(decide) == ["decided by rank 0"] * SIZE


def test_a_loss_that_one_rank_alone_loses_stops_all_alike(ranks: Team) -> None:
    split = some_rows(WHOLE)
    last = torch.randperm(WHOLE, generator=generator(CPU, SEED, "order", 1))[-1]
    split.inputs[last] = math.inf
    errors = ranks.run(train, "plain", split, {"batch_size": WHOLE, "optimizer": {"name": "sgd", "lr": 0.1}})
    assert [type(error) for error in errors] == [Diverged] * SIZE
    assert {str(error) for error in errors} == {
        "the training loss became nan in epoch 1 step 1 at learning rate 0.1; lower train.optimizer.lr or set "
        "train.clip_norm"
    }


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_layer_that_takes_no_part_is_named(ranks: Team, accumulate: int) -> None:
    section = {"batch_size": WHOLE, "accumulate": accumulate}
    for error in ranks.run(train, "with_spare", some_rows(2 * WHOLE), section):
        assert isinstance(error, TrialError)
        assert str(error) == (
            "train.data_parallel: spare.weight, spare.bias had no part in the loss of a batch; expected every "
            "parameter that learns to have one in every batch; freeze or remove it, or set train.data_parallel to 1"
        )
