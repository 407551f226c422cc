from __future__ import annotations

import struct

import pytest

from pipeline.models.search import Axis
from pipeline.report.study import StudyRows, coordinates_title, history_title, importance_title
from pipeline.report.study_figures import study_figures
from pipeline.workspace.experiment_artifacts import StudyFile, TrialRow
from pipeline.workspace.ledger import ComparisonKey

AXES = {
    "alpha": Axis(("alpha",), 0.03, 1000.0, True, False),
    "half_life_days": Axis(("half_life_days",), 3.0, 1000.0, True, False),
    "depth": Axis(("depth",), 2.0, 2.0, False, True),
}
IMPORTANCE = {"alpha": 0.7, "half_life_days": 0.2, "depth": 0.1}
FIELDS = {"alpha": 4.0, "half_life_days": 90.0, "depth": 2.0}


def trial(number, state, value, lift, fields=FIELDS):
    return TrialRow(
        number=number,
        state=state,
        start=number == 0,
        fields=fields,
        windows=() if value is None else (value,),
        seconds=None,
        failure=None,
        lift=lift,
    )


TRIALS = (
    trial(0, "complete", 0.20, 0.0, {"alpha": 100.0, "depth": 2.0}),
    trial(1, "pruned", 0.11, -0.5, {**FIELDS, "alpha": 0.03}),
    trial(2, "failed", None, None),
    trial(5, "complete", 0.24, 0.2),
)
FILE = StudyFile.model_construct(
    name="als",
    candidate=True,
    best=0.24,
    task=ComparisonKey(task="discovery", target_kinds=("purchase",), k=20, data="d"),
    trials=TRIALS,
    importance=IMPORTANCE,
)


def study(axes=AXES, **changes):
    return StudyRows(FILE.model_copy(update=changes), axes)


STUDY = study()
NOTHING = study(candidate=False, best=0.20, trials=TRIALS[:2])
FROM_ZERO = study(
    trials=tuple(
        t.model_copy(update={"lift": None, "windows": (0.24 * (not t.start),)}) for t in TRIALS
    ),
)


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("rows", [STUDY, NOTHING, FROM_ZERO], ids=["found", "nothing", "zero"])
def test_equal_rows_give_equal_bytes(rows):
    drawn = study_figures(rows)
    assert set(drawn) == {"history.png", "coordinates.png", "importance.png"}
    assert {size_of(png)[0] for png in drawn.values()} == {8 * 144}
    assert study_figures(rows) == drawn


def test_nothing_is_drawn_of_an_importance_that_is_not_known():
    assert set(study_figures(study(importance={}))) == {"history.png", "coordinates.png"}


def test_titles_state_the_finding():
    assert history_title(STUDY) == "Tuning lifts NDCG@20 of als by 20.0 %"
    assert history_title(NOTHING) == "No trial is clearly better than als before tuning"
    assert history_title(FROM_ZERO) == "Tuning lifts NDCG@20 of als from 0 to 0.2400"
    assert importance_title(STUDY) == "alpha explains 70.0 % of the variance between trials"
    assert coordinates_title(STUDY) == "The best trial: alpha 4, half_life_days 90, depth 2"
    assert coordinates_title(NOTHING) == "The start is the best trial: alpha 100, depth 2"


def test_of_many_fields_those_that_matter_are_drawn():
    many = {f"als.a_long_name_{n}": Axis((), 0.0, 1.0, False, False) for n in range(12)}
    rows = study(
        many,
        importance={name: n / 100 for n, name in enumerate(many)},
        trials=tuple(t.model_copy(update={"fields": {}}) for t in TRIALS),
    )
    assert [name[-1] for name in rows.foremost] == list("45678901")
    assert coordinates_title(rows) == "The best trial: the 8 most important of 12 fields"
    assert size_of(study_figures(rows)["coordinates.png"])[0] == 8 * 144


def test_a_new_mixture_is_shown_like_the_trials():
    assert STUDY.mixed is None
    mixed = study(best=0.30)
    assert mixed.mixed == pytest.approx(0.5)
    assert history_title(mixed) == "Tuning lifts NDCG@20 of als by 50.0 %"
    assert study_figures(mixed)["history.png"] != study_figures(STUDY)["history.png"]


def test_a_trial_that_moves_changes_the_picture():
    moved = TRIALS[3].model_copy(update={"fields": {**FIELDS, "alpha": 40.0}})
    other = study_figures(study(trials=(*TRIALS[:3], moved)))
    assert other["coordinates.png"] != study_figures(STUDY)["coordinates.png"]
    assert other["history.png"] == study_figures(STUDY)["history.png"]
