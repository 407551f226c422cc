from __future__ import annotations

import pytest

from pipeline.models.tuning import ACCEPTANCE, Acceptance


@pytest.mark.parametrize(
    ("trial", "accepted"),
    [
        ([0.2, 0.2, 0.2], False),
        ([0.2005, 0.2005, 0.2005], False),  # +0.25 %, below the least gain
        ([0.2007, 0.2007, 0.2007], True),
        ([0.30, 0.19, 0.19], False),  # one window alone: the gain is within its standard error
        ([0.30, 0.21, 0.19], False),
        ([0.21, 0.21, 0.196], True),
        ([0.21, 0.19], False),
        ([0.21, 0.201], True),
        ([0.201], True),
        ([0.1, 0.1, 0.1], False),
    ],
)
def test_a_trial_needs_a_gain_beyond_the_least_one_and_its_standard_error(trial, accepted) -> None:
    assert ACCEPTANCE.accepts(trial, [0.2] * len(trial)) is accepted


def test_anything_is_better_than_a_reference_of_zero_but_zero() -> None:
    assert ACCEPTANCE.accepts([0.1, 0.1], [0.0, 0.0])
    assert not ACCEPTANCE.accepts([0.0, 0.0], [0.0, 0.0])


def test_both_bounds_count() -> None:
    trial, reference = [0.22, 0.20], [0.2, 0.2]
    assert Acceptance(min_gain=0.0, paired_se=0.9).accepts(trial, reference)
    assert not Acceptance(min_gain=0.0, paired_se=1.1).accepts(trial, reference)
    assert not Acceptance(min_gain=0.06, paired_se=0.0).accepts(trial, reference)
