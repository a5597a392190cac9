"""The space: which parameters there are, which are asked for, and what comes of the answers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sweeper.space import Choice, Int, Log, Parameter, Space, Uniform, choice_labels
from trials.recipe import AdamW, Sgd

SGD = {"name": "sgd", "lr": Log(0.01, 1.0), "momentum": Uniform(0.8, 0.98)}
ADAMW = {"name": "adamw", "lr": Log(1e-4, 1e-2)}
SECTIONS = {
    "data": {"source": "digits"},
    "model": {"build": "mlp", "width": Int(8, 64, log=True), "dropout": Choice((0.0, Uniform(0.1, 0.5)), (0.0, "on"))},
    "train": {"epochs": Int(2, 6, step=2), "optimizer": Choice((SGD, ADAMW), ("sgd", "adamw"))},
}
SPACE = Space(SECTIONS)


def answers(**values: Any) -> Any:
    """Answer by parameter name, with ``__`` for a dot; anything else at its low end or first label."""
    given = {name.replace("__", "."): value for name, value in values.items()}
    return lambda parameter: given.get(parameter.name, parameter.distribution.probes()[0])


def test_all_parameters_of_all_branches_in_the_order_of_the_file() -> None:
    on, sgd, adamw = ("model.dropout", "on"), ("train.optimizer", "sgd"), ("train.optimizer", "adamw")
    assert SPACE.parameters == (
        Parameter("model.width", "model.width", Int(8, 64, log=True)),
        Parameter("model.dropout", "model.dropout", SECTIONS["model"]["dropout"]),
        Parameter("model.dropout[on]", "model.dropout", Uniform(0.1, 0.5), (on,)),
        Parameter("train.epochs", "train.epochs", Int(2, 6, step=2)),
        Parameter("train.optimizer", "train.optimizer", SECTIONS["train"]["optimizer"]),
        Parameter("train.optimizer[sgd].lr", "train.optimizer.lr", Log(0.01, 1.0), (sgd,)),
        Parameter("train.optimizer[sgd].momentum", "train.optimizer.momentum", Uniform(0.8, 0.98), (sgd,)),
        Parameter("train.optimizer[adamw].lr", "train.optimizer.lr", Log(1e-4, 1e-2), (adamw,)),
    )


def test_only_active_parameters_are_asked_for() -> None:
    asked: list[str] = []

    def pick(parameter: Parameter) -> Any:
        asked.append(parameter.name)
        return "adamw" if parameter.name == "train.optimizer" else parameter.distribution.probes()[0]

    SPACE.decide(pick)
    assert asked == ["model.width", "model.dropout", "train.epochs", "train.optimizer", "train.optimizer[adamw].lr"]


def test_a_decision_holds_the_sections_and_what_was_decided_by_path() -> None:
    decision = SPACE.decide(answers(train__epochs=4, model__width=16))
    assert decision.sections == {
        "data": {"source": "digits"},
        "model": {"build": "mlp", "width": 16, "dropout": 0.0},
        "train": {"epochs": 4, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.8}},
    }
    assert decision.params == {
        "model.width": 16,
        "model.dropout": 0.0,
        "train.epochs": 4,
        "train.optimizer": "sgd",
        "train.optimizer.lr": 0.01,
        "train.optimizer.momentum": 0.8,
    }


def test_a_range_as_an_option_decides_the_value_at_its_path() -> None:
    decision = SPACE.decide(answers(**{"model__dropout": "on", "model__dropout[on]": 0.3}))
    assert decision.sections["model"]["dropout"] == 0.3
    assert decision.params["model.dropout"] == 0.3


def test_values_know_where_they_stand_in_the_file() -> None:
    decision = SPACE.decide(answers(train__optimizer="adamw"))
    assert decision.origins["train", "optimizer", "lr"] == ("train", "optimizer", "choice", 1, "lr")
    assert decision.origins["train", "epochs"] == ("train", "epochs")


def test_a_recipe_from_a_decision() -> None:
    decision = SPACE.decide(answers(train__optimizer="adamw", **{"train__optimizer[adamw]__lr": 0.005}))
    recipe = SPACE.recipe(decision.sections, seed=7, metric="validation.loss")
    assert (recipe.seed, recipe.metric) == (7, "validation.loss")
    assert recipe.train.optimizer == AdamW(name="adamw", lr=0.005)


def test_random_picks_always_give_a_valid_recipe() -> None:
    generator = random.Random(0)

    def pick(parameter: Parameter) -> Any:
        match parameter.distribution:
            case Int(low, high, step):
                return generator.randrange(low, high + 1, step)
            case Uniform(low, high) | Log(low, high):
                return generator.uniform(low, high)
            case Choice(_, labels):
                return generator.choice(labels)

    kinds = set()
    for _ in range(50):
        decision = SPACE.decide(pick)
        recipe = SPACE.recipe(decision.sections, seed=0, metric="validation.accuracy")
        kinds.add(type(recipe.train.optimizer))
        assert recipe.train.optimizer.lr == decision.params["train.optimizer.lr"]
    assert kinds == {Sgd, AdamW}


def test_choices_within_choices_of_sections_name_every_branch() -> None:
    inner = Choice(({"name": "a", "x": Int(1, 2)}, {"name": "b"}), ("a", "b"))
    space = Space({"model": Choice(({"build": "p", "inner": inner}, {"build": "q"}), ("p", "q"))})
    assert [p.name for p in space.parameters] == ["model", "model[p].inner", "model[p].inner[a].x"]
    assert space.parameters[-1].path == "model.inner.x"
    assert space.parameters[-1].when == (("model", "p"), ("model[p].inner", "a"))


def test_items_of_lists_may_vary() -> None:
    space = Space(
        {"data": {"augment": ["random_crop", Choice(("horizontal_flip", "none"), ("horizontal_flip", "none"))]}}
    )
    assert space.parameters[0].path == "data.augment.1"
    decision = space.decide(lambda _: "none")
    assert decision.sections == {"data": {"augment": ["random_crop", "none"]}}


def test_an_item_that_is_chosen_to_be_null_is_left_out() -> None:
    rotation = {"name": "rotation", "degrees": Uniform(1.0, 30.0)}
    choices = [Choice((None, "random_crop"), (None, "random_crop")), Choice((None, rotation), (None, "rotation"))]
    space = Space({"data": {"augment": choices}})
    assert [p.name for p in space.parameters][-1] == "data.augment.1[rotation].degrees"
    decision = space.decide(answers(data__augment__0=None, data__augment__1="rotation"))
    assert decision.sections == {"data": {"augment": [{"name": "rotation", "degrees": 1.0}]}}
    # What was decided is named as the file has it; where it came from, as the recipe has it.
    assert decision.params == {"data.augment.0": None, "data.augment.1": "rotation", "data.augment.1.degrees": 1.0}
    assert decision.origins["data", "augment", 0, "degrees"] == ("data", "augment", 1, "choice", 1, "degrees")
    decision = space.decide(answers(data__augment__0=None, data__augment__1=None))
    assert decision.sections == {"data": {"augment": []}}


def test_null_among_the_arguments_of_a_function_is_a_value() -> None:
    space = Space({"model": {"build": "a:b", "arguments": {"sizes": [1, Choice((None, 2), (None, 2))]}}})
    assert space.decide(lambda _: None).sections["model"]["arguments"] == {"sizes": [1, None]}


def test_true_and_one_are_different_labels() -> None:
    space = Space({"a": Choice(({"flag": False}, {"flag": True}), (1, True))})
    assert space.decide(lambda _: True).sections == {"a": {"flag": True}}
    assert space.decide(lambda _: 1).sections == {"a": {"flag": False}}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (["none", "mixup"], ("none", "mixup")),
        ([16, 32], (16, 32)),
        ([True, False, None], (True, False, None)),
        ([{"name": "sgd", "lr": 1}, {"name": "adamw"}], ("sgd", "adamw")),
        ([{"build": "mlp"}, {"build": "a.b:c"}], ("mlp", "a.b:c")),
        ([None, {"decay": 0.99}], (None, '{"decay":0.99}')),
        (
            [{"name": "sgd", "lr": 1}, {"name": "sgd", "lr": 2}],
            ('{"name":"sgd","lr":1}', '{"name":"sgd","lr":2}'),
        ),
        (["sgd", {"name": "sgd"}], ("sgd", '{"name":"sgd"}')),
        ([0.0, {"uniform": [0.1, 0.5]}], (0.0, '{"uniform":[0.1,0.5]}')),
        ([[], ["random_crop"]], ("[]", '["random_crop"]')),
        ([{"name": {"choice": ["a", "b"]}}, {"name": "c"}], ('{"name":{"choice":["a","b"]}}', '{"name":"c"}')),
    ],
)
def test_labels(options: list[Any], labels: tuple[Any, ...]) -> None:
    assert choice_labels(options) == labels


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (Uniform(0.1, 0.5), [0.1, 0.3, 0.5], [0.09, 0.51, "0.3", True, None]),
        (Log(1.0, 10.0), [1, 10.0], [0.5, 11]),
        (Int(2, 8, step=3), [2, 5, 8], [3, 11, -1, 5.0, True]),
        (Choice(("a", None, 1), ("a", None, 1)), ["a", None, 1, 1.0], ["b", True, 0]),
    ],
)
def test_what_a_distribution_holds(distribution: Any, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside + outside if distribution.holds(value)] == inside
