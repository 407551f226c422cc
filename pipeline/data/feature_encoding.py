"""Tables of items and users -> what is known about those of a window, as sparse features.

Promises: everything is learnt from the rows of the window's own ids, whatever else a table holds,
and does not depend on their order; an id without a row has no features; a table that names an id
twice is refused. A number that is NaN is missing, as at ingest; one that is infinite is an error.
(`data.clean` comes first: what a policy fills in or cuts arrives here as it left it.)

What a column becomes:

* categories, lists of texts, and whatever repeats: a feature a value, 1 where it applies;
* the title, and texts of items that hardly ever repeat: a feature a word, tf-idf, so that the words
  of a row have length 1 together (Salton and Buckley 1988);
* numbers: ten bins with about as many rows each. Taste is no straight line in a price, no outlier
  can outweigh the rest, and a missing number is simply in no bin;
* lists of numbers with a fraction: a vector, standardised, and divided by the root of its length,
  so that it weighs about as much as one value.

Further columns lie in the lake as text, so a kind is read off the values: whole numbers that repeat
are names, not amounts. A text of *users* that hardly repeats names a person, and is no feature.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix
from pipeline.data.matrix import History
from pipeline.errors import DataError

FEWEST: Final = 2
"""Rows that a value must have: of one alone nothing is learnt for others."""
NEARLY_ALL: Final = 0.95
"""A value of more than this share of the rows tells nobody apart."""
MOST: Final = 4096
"""Values, and words, that are kept of a column, the most common ones."""
BINS: Final = 10

_NO_FEATURES: Final = (c.ITEM_ID, c.USER_ID, c.AVAILABLE, c.CREATED_AT)
_TOO_LARGE: Final = 1e100
_WORD: Final = r"[\p{L}\p{N}]{2,}"
_LINE: Final = "#line"
_WILD: Final = "a number is infinite"
_ROW, _NAME, _CELL = "row", "name", "cell"
_NONE: Final = pl.DataFrame(schema={_ROW: pl.UInt32(), _NAME: pl.String(), _CELL: pl.Float64()})


def described(
    history: History, items: pl.DataFrame | None = None, users: pl.DataFrame | None = None
) -> History:
    """Return the window with what the tables know of its items and users.

    Parameters
    ----------
    items, users
        The tables as `columns.ITEMS` and `columns.USERS`, with further columns. An item that was
        created before the window's end and has no event in it joins `History.cold_items`.

    Raises
    ------
    DataError
        An id stands twice, a number is infinite, or vectors differ in length.
    """
    if items is not None:
        created = items.filter(items[c.CREATED_AT] < history.end)[c.ITEM_ID]
        others = np.setdiff1d(np.asarray(created.to_list(), np.str_), history.item_ids)
        ids, n = np.concatenate([history.item_ids, others]), history.n_items
        matrix, cold_items = _describe("items", items, c.ITEM_ID, ids, n), None
        if matrix is not None:
            more = n + np.flatnonzero(np.diff(matrix.cells.indptr)[n:])
            cold_items = ColdItems(ids[more], matrix.rows(more)) if len(more) else None
            matrix = matrix.rows(np.arange(n))
        history = replace(history, item_features=matrix, cold_items=cold_items)
    if users is not None:
        user_matrix = _describe("users", users, c.USER_ID, history.user_ids, history.n_users)
        history = replace(history, user_features=user_matrix)
    return history


def _describe(
    name: str, table: pl.DataFrame, key: str, ids: NDArray[np.str_], n: int
) -> FeatureMatrix | None:
    """Describe `ids` by what the first `n` of them teach; ``None`` where nothing is known."""
    table = table.with_row_index(_LINE)
    repeated = table.filter(table[key].is_duplicated())
    _refuse(f"{name}.{key}", "an id stands more than once", repeated[_LINE])
    wanted = pl.DataFrame({key: ids.tolist()}, schema={key: pl.String})
    rows = wanted.join(table, on=key, how="left", maintain_order="left")
    blocks = []
    for column in sorted(set(table.columns) - {*_NO_FEATURES, _LINE}):
        place = _Place(f"{name}.{column}", rows[_LINE], n, words=key == c.ITEM_ID)
        blocks.append(_features(rows[column], place))
    cells = pl.concat(blocks) if blocks else pl.DataFrame()
    if cells.is_empty():
        return None
    names = cells[_NAME].unique().sort()
    column_of = cells[_NAME].cast(pl.Enum(names)).to_physical().to_numpy()
    values = cells[_CELL].to_numpy().astype(np.float32)
    matrix = sp.csr_matrix(
        (values, (cells[_ROW].to_numpy(), column_of)), shape=(len(ids), len(names))
    )
    return FeatureMatrix(np.asarray(names.to_list(), np.str_), matrix)


@dataclass(frozen=True)
class _Place:
    """Where values of a column stand.

    Attributes
    ----------
    where
        Table and column, for errors.
    line
        Row of the table that each value is from, null where the id has none.
    n
        The first `n` values teach, the others are read as these say.
    words
        Whether text that hardly repeats is a feature.
    """

    where: str
    line: pl.Series
    n: int
    words: bool

    def refuse(self, what: str, bad: pl.Series) -> None:
        """Raise `DataError` if any value is bad."""
        _refuse(self.where, what, self.line.filter(bad))


def _refuse(where: str, what: str, lines: pl.Series) -> None:
    if len(lines):
        positions = (lines.sort() + 1).to_list()
        raise DataError(
            "features.not_a_list", what, where=where, count=len(lines), positions=positions
        )


def _features(values: pl.Series, at: _Place) -> pl.DataFrame:
    """Return row, name and cell of a column's features."""
    if values.dtype == pl.String:
        values = values.str.strip_chars()
        if values.name == c.TITLE:
            return _words(values, at.n)
        if values.name != c.SEGMENT:
            values = _read(values, at)
    if values.dtype == pl.Boolean:
        values = values.cast(pl.String)
    if values.dtype.is_numeric():
        return _tags(_binned(values.cast(pl.Float64).fill_nan(None), at), at.n)
    if isinstance(values.dtype, pl.List | pl.Array):
        if values.dtype.inner.is_numeric():
            return _vector(values.cast(pl.List(pl.Float64)), at)
        return _tags(values.cast(pl.List(pl.String)), at.n)
    if values.dtype == pl.String:
        if values.name == c.SEGMENT or _repeats(values[: at.n]):
            return _tags(values, at.n)
        if at.words:
            return _words(values, at.n)
    return _NONE


def _read(text: pl.Series, at: _Place) -> pl.Series:
    """Read text as lists or numbers, where all values that teach are written so."""
    known = text[: at.n].drop_nulls()
    if known.is_empty():
        return text
    if known.str.starts_with("[").all():
        lists = [_list(value) for value in text]
        if sum(value is not None for value in lists[: at.n]) == len(known):
            return _lists(text.name, lists)
    number = text.cast(pl.Float64, strict=False)
    taught = number[: at.n].drop_nulls()
    if len(taught) < len(known):
        return text
    finite = taught.filter(taught.is_finite())
    whole = (finite == finite.floor()).all()
    return text if whole and _repeats(known) else number


def _repeats(values: pl.Series) -> bool:
    """Tell whether values stand for two rows each, or more, on the mean."""
    known = values.drop_nulls()
    return 2 * known.n_unique() <= len(known)


def _list(text: str | None) -> list[Any] | None:
    """Return the numbers and texts of a JSON list, ``None`` for what is no such list."""
    try:
        values = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    plain = isinstance(values, list) and all(type(one) in (str, int, float) for one in values)
    return values if plain else None


def _lists(name: str, lists: list[list[Any] | None]) -> pl.Series:
    """Return vectors if all are numbers and any has a fraction, else lists of texts."""
    kinds = {type(one) for values in lists for one in values or ()}
    if float in kinds and str not in kinds:
        floats = [None if values is None else [float(one) for one in values] for values in lists]
        return pl.Series(name, floats, dtype=pl.List(pl.Float64))
    texts = [None if values is None else [str(one) for one in values] for values in lists]
    return pl.Series(name, texts, dtype=pl.List(pl.String))


def _tags(values: pl.Series, n: int) -> pl.DataFrame:
    """Make a feature of each value that is neither rare nor nearly everybody's."""
    return _common(_cells(values).unique([_ROW, _NAME]), n).with_columns(pl.lit(1.0).alias(_CELL))


def _words(text: pl.Series, n: int) -> pl.DataFrame:
    """Make a feature of each word: times it stands in the row · log(rows / rows that have it)."""
    words = text.str.normalize("NFKC").str.to_lowercase().str.extract_all(_WORD)
    cells = _common(_cells(words).group_by(_ROW, _NAME).agg(pl.len().alias(_CELL)), n)
    rows = (pl.col(_ROW) < n).sum().over(_NAME)
    weighed = cells.with_columns((pl.col(_CELL) * (n / rows).log()).alias(_CELL))
    length = (pl.col(_CELL) ** 2).sum().over(_ROW).sqrt()
    return weighed.with_columns(pl.col(_CELL) / length)


def _cells(values: pl.Series) -> pl.DataFrame:
    """Return the row and the name of each value, or of each value of a list."""
    rows = pl.int_range(len(values), dtype=pl.UInt32, eager=True)
    cells = pl.DataFrame([rows.alias(_ROW), values.alias(_NAME)])
    if isinstance(values.dtype, pl.List):
        cells = cells.explode(_NAME)
    text = pl.col(_NAME).str.strip_chars()
    return cells.filter(text != "").with_columns(
        pl.format(f"{values.name}={{}}", text).alias(_NAME)
    )


def _common(cells: pl.DataFrame, n: int) -> pl.DataFrame:
    """Keep the names that at least `FEWEST` and not `NEARLY_ALL` of the first `n` rows have."""
    counts = cells.filter(pl.col(_ROW) < n).group_by(_NAME).len()
    kept = counts.filter((pl.col("len") >= FEWEST) & (pl.col("len") <= NEARLY_ALL * n))
    kept = kept.sort("len", _NAME, descending=[True, False]).head(MOST)
    return cells.join(kept, on=_NAME, how="semi")


def _binned(numbers: pl.Series, at: _Place) -> pl.Series:
    """Name the bin of each number; the edges are numbers that somebody sent."""
    at.refuse(_WILD, numbers.abs() >= _TOO_LARGE)
    known = numbers[: at.n].drop_nulls().to_numpy()
    if not len(known):
        return pl.Series(numbers.name, [None] * len(numbers), dtype=pl.String)
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    bounds = pairwise(["", *map(str, edges.tolist()), ""])
    labels = pl.Series(numbers.name, [f"{low}..{high}" for low, high in bounds])
    bins = pl.Series(np.searchsorted(edges, numbers.fill_null(0).to_numpy(), "right"))
    return labels.gather(bins.set(numbers.is_null(), None))


def _vector(vectors: pl.Series, at: _Place) -> pl.DataFrame:
    """Make a feature of each dimension that is not the same for all; part of a vector is none."""
    length = vectors.list.len()
    most = length[: at.n].drop_nulls().mode().sort()
    at.refuse(f"a vector is not of {most[0] if len(most) else 0} numbers", length != most.first())
    at.refuse(_WILD, vectors.list.eval(pl.element().fill_nan(None).abs() >= _TOO_LARGE).list.any())
    whole = vectors.list.eval(pl.element().is_nan() | pl.element().is_null()).list.any().not_()
    rows = whole.fill_null(False).arg_true().to_numpy()
    matrix = np.asarray(vectors.gather(rows).to_list(), np.float64).reshape(len(rows), -1)
    taught = matrix[rows < at.n]
    spread = taught.std(axis=0) if len(taught) else np.zeros(matrix.shape[1])
    kept = np.flatnonzero(spread > 0)
    size = spread[kept] * np.sqrt(matrix.shape[1])
    scaled = (matrix[:, kept] - taught.mean(axis=0)[kept]) / size
    digits = len(str(matrix.shape[1]))
    names = np.array([f"{vectors.name}={at:0{digits}}" for at in kept.tolist()], np.str_)
    return pl.DataFrame(
        {
            _ROW: np.repeat(rows, len(kept)).astype(np.uint32),
            _NAME: np.tile(names, len(rows)),
            _CELL: scaled.ravel(),
        },
        schema=_NONE.schema,
    )
