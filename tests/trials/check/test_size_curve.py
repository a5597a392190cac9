"""The picture of an ensemble shows the numbers that it is given."""

from __future__ import annotations

from pathlib import Path

from trials.check.size_curve import draw_size_curve, size_curve_figure


def test_the_curve_the_best_single_and_the_chosen_size_are_in_it() -> None:
    (axes,) = size_curve_figure([0.91, 0.92, 0.925, 0.923], 3, "validation.accuracy").axes
    curve, single, chosen = axes.get_lines()
    assert list(curve.get_xdata()) == [1, 2, 3, 4]
    assert list(curve.get_ydata()) == [0.91, 0.92, 0.925, 0.923]
    assert set(single.get_ydata()) == {0.91}
    assert single.get_linestyle() == "--"
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([3], [0.925])
    assert axes.get_ylabel() == "validation.accuracy"


def test_it_is_written_as_a_picture(tmp_path: Path) -> None:
    draw_size_curve([0.5], 1, "validation.loss", tmp_path / "pictures" / "one.png")
    assert (tmp_path / "pictures" / "one.png").read_bytes().startswith(b"\x89PNG")
