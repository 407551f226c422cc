from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.report import figures
from pipeline.report.night import LiftRow, RecipeRow, SliceRow

RECIPES = (
    RecipeRow("als", "candidate", 0.1212, 0.115, 0.1274, 0.31),
    RecipeRow("popularity", "champion", 0.0866, 0.081, 0.0922, 0.012),
    RecipeRow("broken", "candidate", failure="no GPU"),
)
LIFTS = (LiftRow("als", 0.4, 0.35, 0.45, True), LiftRow("other", -0.4, -0.5, -0.3))
SLICES = (
    SliceRow("cold", 301, (0.09, 0.07, 0.11), (0.085, 0.065, 0.105)),
    SliceRow("new_items", 88, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
)

DRAW: dict[str, Callable[[], bytes]] = {
    "recipes": lambda: figures.recipes_figure(RECIPES, "ndcg_at_20", "als"),
    "lifts": lambda: figures.lifts_figure(LIFTS, "popularity", 0.01),
    "slices": lambda: figures.slices_figure(SLICES, "ndcg_at_20", "als", "popularity"),
}


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("name", DRAW)
def test_equal_rows_give_equal_bytes(name: str) -> None:
    drawn = DRAW[name]()
    assert size_of(drawn)[0] == 8 * 144
    assert drawn == DRAW[name]()
    assert b"Software" not in drawn


def test_other_rows_give_another_figure() -> None:
    assert figures.recipes_figure(RECIPES, "ndcg_at_20", "als") != figures.recipes_figure(
        RECIPES, "ndcg_at_20", "popularity"
    )
    second = LiftRow("second", 0.3, 0.25, 0.35)  # the title names the first either way
    unproved = figures.lifts_figure((*LIFTS, second), "popularity", 0.01)
    proved = figures.lifts_figure((*LIFTS, replace(second, proved=True)), "popularity", 0.01)
    assert unproved != proved


def test_a_figure_grows_with_its_rows_up_to_a_limit() -> None:
    def height(n: int) -> int:
        rows = tuple(RecipeRow(f"r{i}", "candidate", 0.1, 0.1, 0.1) for i in range(n))
        return size_of(figures.recipes_figure(rows, "ndcg_at_20", None))[1]

    assert height(1) < height(4) < height(16) == height(40)


def test_odd_names_are_drawn_as_they_are() -> None:
    name = r"$\nope{$" + "x" * 80
    rows = (RecipeRow(name, "candidate", 0.1, 0.05, 0.15),)
    assert size_of(figures.recipes_figure(rows, "ndcg_at_20", name))
    assert size_of(figures.lifts_figure((LiftRow(name, 0.1, 0.0, 0.2),), name, None))
    assert size_of(figures.slices_figure(SLICES, "ndcg_at_20", name, name))


def test_nothing_of_pyplot_is_touched() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from pipeline.report.figures import recipes_figure\n"
            "from pipeline.report.night import RecipeRow\n"
            "loaded = 'matplotlib' in sys.modules\n"
            "recipes_figure((RecipeRow('a', 'candidate', .1),), 'ndcg_at_20', None)\n"
            "print(loaded, 'matplotlib.pyplot' in sys.modules)",
        ],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["False", "False"]
