from dataclasses import replace

import numpy as np
import pytest

from pipeline.steps.experiments.reproduction.causes import CauseKind, Provenance, causes, differing

THEN = Provenance(
    rows={"events": 100, "items": 10, "users": 0},
    trained_on="cpu",
    libraries={"numpy": "2.4", "blas": "openblas 0.3 Haswell"},
    commit="a" * 40,
)


def kinds_and_sentences(now, *, then=THEN, deterministic=True, window=(), damage=None):
    named = causes(then, now, deterministic=deterministic, window=window, damage=damage)
    return [(cause.kind, cause.sentence) for cause in named]


def test_nothing_that_is_the_same_is_a_cause():
    assert kinds_and_sentences(THEN) == []


@pytest.mark.parametrize(
    ("changed", "kind", "part"),
    [
        (
            {"rows": {"events": 97, "items": 10, "users": 0}},
            CauseKind.ROWS,
            ": 3 are gone, as after",
        ),
        ({"rows": {"items": 10, "users": 0}}, CauseKind.ROWS, "have 0 rows instead of 100"),
        (
            {"rows": {"events": 101, "items": 10, "users": 0}},
            CauseKind.DATA,
            "have 101 rows instead of 100",
        ),
        ({"trained_on": "cuda"}, CauseKind.DEVICE, "trained on cpu and now on cuda"),
        ({"commit": "b" * 40}, CauseKind.CODE, "was commit aaaaaaaaaaaa and is now bbbbbbbbbbbb"),
        (
            {"libraries": {"numpy": "2.5", "blas": "openblas 0.3 Haswell"}},
            CauseKind.LIBRARY,
            "numpy was 2.4 and is now 2.5",
        ),
        ({"libraries": {"numpy": "2.4"}}, CauseKind.LIBRARY, "Haswell and is now not installed"),
    ],
)
def test_each_change_is_named_alone(changed, kind, part):
    ((named, sentence),) = kinds_and_sentences(replace(THEN, **changed))
    assert named == kind and part in sentence


def test_a_window_of_as_many_rows_that_differs_is_named_by_its_arrays():
    ((kind, sentence),) = kinds_and_sentences(THEN, window=("timestamp_us", "weight"))
    assert kind == CauseKind.DATA and "differs in timestamp_us, weight" in sentence


def test_fewer_rows_explain_the_window_by_themselves():
    fewer = replace(THEN, rows={**THEN.rows, "events": 99})
    assert [kind for kind, _ in kinds_and_sentences(fewer, window=("timestamp_us",))] == [
        CauseKind.ROWS
    ]


def test_errors_of_the_lake_on_its_files_are_passed_on():
    assert kinds_and_sentences(THEN, damage="lake table events: x differs") == [
        (CauseKind.DATA, "lake table events: x differs")
    ]


def test_threads_that_race_are_a_cause_by_declaration():
    assert [kind for kind, _ in kinds_and_sentences(THEN, deterministic=False)] == [
        CauseKind.THREADS
    ]


def test_a_gpu_then_and_now_is_a_cause_by_itself():
    gpu = replace(THEN, trained_on="cuda")
    assert [kind for kind, _ in kinds_and_sentences(gpu, then=gpu)] == [CauseKind.DEVICE]


def test_libraries_that_were_not_recorded_cannot_be_ruled_out():
    silent = replace(THEN, libraries={})
    ((kind, sentence),) = kinds_and_sentences(THEN, then=silent)
    assert kind == CauseKind.LIBRARY and "did not record" in sentence


def test_the_surest_cause_stands_first():
    now = replace(THEN, rows={**THEN.rows, "events": 1}, commit="b" * 40, trained_on="cuda")
    kinds = [kind for kind, _ in kinds_and_sentences(now, deterministic=False)]
    assert kinds == [CauseKind.ROWS, CauseKind.THREADS, CauseKind.DEVICE, CauseKind.CODE]


def test_arrays_differ_by_value_type_shape_or_absence():
    one = {
        "same": np.array([1.0, np.nan]),
        "text": np.array(["a"]),
        "value": np.array([1.0]),
        "type": np.array([1], np.int32),
        "shape": np.zeros(2),
        "mine": np.zeros(1),
    }
    other = {
        "same": np.array([1.0, np.nan]),
        "text": np.array(["a"]),
        "value": np.array([1.0 + 1e-16, 0.0])[:1] + 1e-15,
        "type": np.array([1], np.int64),
        "shape": np.zeros(3),
        "theirs": np.zeros(1),
    }
    assert differing(one, other) == ("value", "type", "shape", "mine", "theirs")
    assert differing(one, one) == ()
