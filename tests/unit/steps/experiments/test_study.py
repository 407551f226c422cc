from __future__ import annotations

import pytest

from pipeline.steps.experiments.tuning.study import lift_over


def test_a_trial_is_compared_on_the_windows_that_it_has_seen():
    start = [0.4, 0.2, 0.2]
    assert lift_over([0.2], start) == pytest.approx(-0.5)
    assert lift_over([0.4, 0.5], start) == pytest.approx(0.5)
    assert lift_over([], start) is None
    assert lift_over([0.1], [0.0, 0.2]) is None
