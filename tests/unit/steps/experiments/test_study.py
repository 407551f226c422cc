from __future__ import annotations

import pytest

from pipeline.steps.experiments.tuning.study import ahead, lift_over


@pytest.mark.parametrize(
    ("ours", "better"),
    [
        ([0.2, 0.2, 0.2], False),
        ([0.2015, 0.2015, 0.2015], False),  # less than 1 % is luck
        ([0.203, 0.203, 0.203], True),
        ([0.30, 0.19, 0.19], False),  # one window alone
        ([0.30, 0.21, 0.19], True),
        ([0.1, 0.1, 0.1], False),
    ],
)
def test_only_what_is_clearly_better_on_most_windows_is_ahead(ours, better):
    assert ahead(ours, [0.2, 0.2, 0.2]) is better


def test_anything_is_ahead_of_nothing_but_nothing():
    assert ahead([0.1, 0.1], [0.0, 0.0])
    assert not ahead([0.0, 0.0], [0.0, 0.0])


def test_a_trial_is_compared_on_the_windows_that_it_has_seen():
    start = [0.4, 0.2, 0.2]
    assert lift_over([0.2], start) == pytest.approx(-0.5)
    assert lift_over([0.4, 0.5], start) == pytest.approx(0.5)
    assert lift_over([], start) is None
    assert lift_over([0.1], [0.0, 0.2]) is None
