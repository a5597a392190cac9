from __future__ import annotations

from sweeper.mlflow_runs import flatten


def test_names_of_nested_sections_are_dotted_paths() -> None:
    tree = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}
    assert flatten(tree) == {"a.b.c": 1, "a.d": [], "e": {}, "f": None}
