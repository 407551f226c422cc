"""Lists are removed by age, in whole chains, never the last two bases."""

from datetime import UTC, datetime, timedelta

import polars as pl

from pipeline import columns as c
from pipeline.serving.retire import last_bases, retired

START = datetime(2024, 3, 1, tzinfo=UTC)


def day(n: int) -> datetime:
    return START + timedelta(days=n)


def published(*rows: tuple[str, str | None, int]) -> pl.DataFrame:
    """Rows of (name, base, day of going live), one generation after the other."""
    publications = [
        {
            c.PUBLICATION_ID: name,
            c.GENERATION: number,
            c.BASE: base,
            c.MODEL_VERSION: "1",
            c.RUN_ID: f"run-{name}",
            c.RECIPE: "als",
            c.AS_OF: day(when),
            c.LIVE_FROM: day(when),
            c.CATALOGUE_VERSION: 0,
            c.RULES_HASH: "",
            c.SUMS: "",
        }
        for number, (name, base, when) in enumerate(rows, start=1)
    ]
    return pl.DataFrame(publications, schema=c.PUBLICATIONS).sample(
        fraction=1.0, shuffle=True, seed=1
    )


ALL = published(
    ("a", None, 0), ("a1", "a", 1), ("b", None, 10), ("b1", "b", 11), ("c", None, 20),
    ("d", None, 30), ("d1", "d", 31),
)  # fmt: skip
WRITTEN = dict.fromkeys(ALL[c.PUBLICATION_ID], day(0))


def test_a_chain_goes_when_others_took_its_place_long_enough_ago():
    assert retired(ALL, WRITTEN, day(10)) == []
    assert retired(ALL, WRITTEN, day(11)) == ["a", "a1"]
    assert retired(ALL, WRITTEN, day(20)) == ["a", "a1"]
    assert retired(ALL, WRITTEN, day(21)) == ["a", "a1", "b", "b1"]


def test_the_last_two_bases_and_their_patches_always_stay():
    assert retired(ALL, WRITTEN, day(10_000)) == ["a", "a1", "b", "b1"]
    one = published(("a", None, 0))
    assert retired(one, {"a": day(0)}, day(10_000)) == []
    assert last_bases(ALL)[c.PUBLICATION_ID].to_list() == ["c", "d"]


def test_recently_written_lists_stay_whatever_their_as_of():
    assert retired(ALL, {**WRITTEN, "a1": day(40)}, day(30)) == ["a", "b", "b1"]


def test_only_existing_lists_are_removed_and_unpublished_ones_at_once():
    listed = {"b": day(0), "x": day(50), "d": day(0)}
    assert retired(ALL, listed, day(21)) == ["b", "x"]
    assert retired(published(), {"x": day(50)}, day(0)) == ["x"]
    assert last_bases(published()).height == 0
