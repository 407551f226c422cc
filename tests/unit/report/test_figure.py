from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.report.figure import spread


@given(
    some.lists(some.floats(0, 1, allow_nan=False), min_size=1, max_size=6),
    some.floats(0.01, 0.15),
)
def test_labels_lie_apart_near_their_lines_and_not_below_the_axes(heights, gap):
    heights = sorted(heights, reverse=True)
    placed = spread(heights, gap, 0.0)
    assert all(a - b >= gap - 1e-9 for a, b in pairwise(placed))
    assert min(placed) >= 0
    assert placed[0] <= max(heights[0], gap * (len(heights) - 1)) + 1e-9
    if all(a - b >= gap for a, b in pairwise(heights)):
        assert placed == pytest.approx(heights)


def test_labels_of_lines_that_end_together_go_down():
    assert spread([0.5, 0.5, 0.49], 0.1, 0.0) == pytest.approx([0.5, 0.4, 0.3])
    assert spread([0.1, 0.1, 0.1], 0.1, 0.0) == pytest.approx([0.2, 0.1, 0.0])
