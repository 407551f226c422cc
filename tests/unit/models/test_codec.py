from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.models.codec import pack, unpack


@dataclass(frozen=True)
class Inner:
    names: NDArray[np.str_]
    share: float


@dataclass(frozen=True)
class Outer:
    end: datetime = field(metadata={"key": "until"})
    count: int
    half_life_days: float | None
    links: sp.csr_matrix
    inner: Inner | None
    text: NDArray[np.uint8] | None
    family: str


INNER = Inner(np.array(["a", "b"]), 0.25)
END = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
TEXT = np.frombuffer(b"trees", np.uint8)
KEYS = ["until", "count", "half_life_days", "links_data", "links_indices", "links_indptr"]


@pytest.mark.parametrize("days", [None, 30.0])
@pytest.mark.parametrize(("inner", "text"), [(None, None), (INNER, TEXT)])
def test_fields_come_back_as_they_were(days, inner, text):
    links = sp.csr_matrix(np.array([[0, 2], [0, 0]], np.float32))
    packed = pack(Outer(END, 3, days, links, inner, text, "als"))
    nested = ["inner/names", "inner/share", "text"] if inner else []
    assert list(packed) == [*KEYS, *nested, "family"]
    assert all(array.dtype != object for array in packed.values())
    again = Outer(**unpack(Outer, packed))
    assert (again.end, again.count, again.half_life_days, again.family) == (END, 3, days, "als")
    assert (again.text is None) if text is None else (again.text.tobytes() == b"trees")
    assert again.links.toarray().tolist() == links.toarray().tolist()
    assert (again.inner is None) is (inner is None)
    if again.inner is not None:
        assert (again.inner.names.tolist(), again.inner.share) == (["a", "b"], 0.25)


def test_skipped_fields_are_neither_written_nor_read():
    packed = pack(INNER, skip=("share",))
    assert list(packed) == ["names"]
    assert list(unpack(Inner, packed, skip=("share",))) == ["names"]
