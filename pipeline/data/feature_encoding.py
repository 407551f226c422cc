"""Encoding of the tables of items and users as sparse features of a window.

Guarantees: categories, words, bins and scales are learnt only from rows of the window's ids, in any
order; an id without a row has no features; a table with a repeated id is refused. NaN is a missing
number, as at ingest; an infinite number is an error. Tables are cleaned before (`data.clean`).

Encoding by kind of column:

* categories, lists of texts, and texts or whole numbers that repeat: one feature per value, 1 where
  it applies;
* titles, and texts of items that hardly repeat: one feature per word, tf-idf, with the words of a
  row scaled to length 1 (Salton and Buckley 1988);
* numbers: ten bins with about equally many rows. Bins allow any relation between price and
  preference, bound the effect of outliers, and need no fill value for a missing number;
* lists of numbers with fractions: a standardised vector, divided by the root of its length, so that
  it has about the weight of one value.

Additional columns are stored as text, so the kind is inferred from the values: whole numbers that
repeat are codes, not quantities. Texts of *users* that hardly repeat may identify a user and are
left out.
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

MIN_ROWS: Final = 2
"""Minimum number of rows per value: nothing can be learnt from the value of a single row."""
MAX_ROW_SHARE: Final = 0.95
"""Maximum share of rows per value: a value of almost all rows cannot distinguish them."""
MAX_VALUES: Final = 4096
"""Maximum number of values or words of a column; the most common ones are kept."""
BINS: Final = 10

_NO_FEATURES: Final = (c.ITEM_ID, c.USER_ID, c.AVAILABLE, c.CREATED_AT)
_TOO_LARGE: Final = 1e100
_WORD: Final = r"[\p{L}\p{N}]{2,}"
_LINE: Final = "#line"
_ROW, _NAME, _CELL = "row", "name", "cell"
_NONE: Final = pl.DataFrame(schema={_ROW: pl.UInt32(), _NAME: pl.String(), _CELL: pl.Float64()})


def add_features(
    history: History, items: pl.DataFrame | None = None, users: pl.DataFrame | None = None
) -> History:
    """Add the features of its items and users to a window.

    Parameters
    ----------
    history
        The window.
    items, users
        Rows of `columns.ITEMS` and `columns.USERS` with additional columns; ``None``: no features.

    Returns
    -------
    The window with features. Items that were created before its end, have no event in it and have
    a feature become its `cold_items`.

    Raises
    ------
    DataError
        `features.repeated_id`, `features.not_finite`; `features.vector_length`: vectors of a column
        differ in length.
    """
    if items is not None:
        # Without created_at it is unknown if an item existed before the end: it stays out.
        created = items.filter(items[c.CREATED_AT] < history.end)[c.ITEM_ID]
        others = np.setdiff1d(np.asarray(created.to_list(), np.str_), history.item_ids)
        ids, n = np.concatenate([history.item_ids, others]), history.n_items
        matrix, cold_items = _encode_table("items", items, c.ITEM_ID, ids, n), None
        if matrix is not None:
            more = n + np.flatnonzero(np.diff(matrix.cells.indptr)[n:])
            cold_items = ColdItems(ids[more], matrix.rows(more)) if len(more) else None
            matrix = matrix.rows(np.arange(n))
        history = replace(history, item_features=matrix, cold_items=cold_items)
    if users is not None:
        user_matrix = _encode_table("users", users, c.USER_ID, history.user_ids, history.n_users)
        history = replace(history, user_features=user_matrix)
    return history


def described_users(window: History, users: pl.DataFrame) -> History:
    """Return the users without an event in a window that have features, with empty histories.

    Parameters
    ----------
    window
        Its users define the features; a value that none of them has is left out.
    users
        The rows that the features of the window were made from.
    """
    others = np.setdiff1d(np.asarray(users[c.USER_ID].to_list(), np.str_), window.user_ids)
    ids = np.concatenate([window.user_ids, others])
    matrix = None
    if window.user_features is not None:
        matrix = _encode_table("users", users, c.USER_ID, ids, window.n_users)
    rows = np.zeros(0, np.int64)
    if matrix is not None:
        rows = window.n_users + np.flatnonzero(np.diff(matrix.cells.indptr)[window.n_users :])
    none = window.take(np.full(len(rows), -1))
    features = None if matrix is None else matrix.rows(rows)
    return replace(none, user_ids=ids[rows], user_features=features)


def _encode_table(
    name: str, table: pl.DataFrame, key: str, ids: NDArray[np.str_], n: int
) -> FeatureMatrix | None:
    """Encode the rows of `ids`; the first `n` define the features. ``None`` without features."""
    table = table.with_row_index(_LINE)
    repeated = table.filter(table[key].is_duplicated())
    if len(repeated):
        raise DataError(
            "features.repeated_id",
            "an id is repeated; keep one row per id, and ingest the file again",
            where=f"{name}.{key}",
            count=len(repeated),
            positions=_line_numbers(repeated[_LINE]),
        )
    wanted = pl.DataFrame({key: ids.tolist()}, schema={key: pl.String})
    rows = wanted.join(table, on=key, how="left", maintain_order="left")
    blocks = []
    for column in sorted(set(table.columns) - {*_NO_FEATURES, _LINE}):
        place = _Place(f"{name}.{column}", rows[_LINE], n, words=key == c.ITEM_ID)
        blocks.append(_features(rows[column], place))
    cells = pl.concat(blocks) if blocks else pl.DataFrame()
    if cells.is_empty():
        return None
    names = cells[_NAME].unique().sort()  # sorted: the same data give the same columns
    column_of = cells[_NAME].cast(pl.Enum(names)).to_physical().to_numpy()
    values = cells[_CELL].to_numpy().astype(np.float32)
    matrix = sp.csr_matrix(
        (values, (cells[_ROW].to_numpy(), column_of)), shape=(len(ids), len(names))
    )
    return FeatureMatrix(np.asarray(names.to_list(), np.str_), matrix)


@dataclass(frozen=True)
class _Place:
    """Origin of the values of a column.

    Attributes
    ----------
    where
        Table and column, for errors.
    line
        Row of the table for each value; null for an id without a row.
    n
        The first `n` values define the features; the others only get them.
    words
        Encode texts that hardly repeat by their words.
    """

    where: str
    line: pl.Series
    n: int
    words: bool

    def refuse_not_finite(self, values: pl.Series, bad: pl.Series) -> None:
        """Raise `features.not_finite` if any value is bad."""
        lines = self.line.filter(bad)
        if len(lines):
            value = values.filter(bad).explode()
            value = value.filter(value.abs() >= _TOO_LARGE)[0]
            raise DataError(
                "features.not_finite",
                f"the number {value:g} is infinite or at least 1e100; correct it, and ingest the "
                "file again",
                where=self.where,
                count=len(lines),
                positions=_line_numbers(lines),
            )

    def refuse_other_length(self, length: int, bad: pl.Series) -> None:
        """Raise `features.vector_length` if any vector is bad."""
        lines = self.line.filter(bad)
        if len(lines):
            raise DataError(
                "features.vector_length",
                f"a vector does not have {length} numbers, as most others have; correct it, "
                "and ingest the file again",
                where=self.where,
                count=len(lines),
                positions=_line_numbers(lines),
            )


def _line_numbers(lines: pl.Series) -> list[int]:
    return (lines.sort() + 1).to_list()


def _features(values: pl.Series, at: _Place) -> pl.DataFrame:
    """Encode a column as entries: row, name and cell."""
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
    """Parse text as lists or numbers if all of the first `n` values can be parsed."""
    filled = text[: at.n].drop_nulls()
    if filled.is_empty():
        return text
    if filled.str.starts_with("[").all():
        lists = [_list(value) for value in text]
        if sum(value is not None for value in lists[: at.n]) == len(filled):
            return _lists(text.name, lists)
    number = text.cast(pl.Float64, strict=False)
    training = number[: at.n].drop_nulls()
    if len(training) < len(filled):
        return text
    finite = training.filter(training.is_finite())
    # Whole numbers that repeat are codes, not quantities.
    whole = (finite == finite.floor()).all()
    return text if whole and _repeats(filled) else number


def _repeats(values: pl.Series) -> bool:
    """Check if each value occurs at least twice on average."""
    filled = values.drop_nulls()
    return 2 * filled.n_unique() <= len(filled)


def _list(text: str | None) -> list[Any] | None:
    """Return the numbers and texts of a JSON list; ``None`` for any other text."""
    try:
        values = json.loads(text or "")
    except (ValueError, RecursionError):  # deep nesting exceeds json's recursion limit
        return None
    plain = isinstance(values, list) and all(type(value) in (str, int, float) for value in values)
    return values if plain else None


def _lists(name: str, lists: list[list[Any] | None]) -> pl.Series:
    """Return vectors if all values are numbers and any has a fraction, else lists of texts."""
    kinds = {type(value) for values in lists for value in values or ()}
    if float in kinds and str not in kinds:
        floats = [
            None if values is None else [float(value) for value in values] for values in lists
        ]
        return pl.Series(name, floats, dtype=pl.List(pl.Float64))
    texts = [None if values is None else [str(value) for value in values] for values in lists]
    return pl.Series(name, texts, dtype=pl.List(pl.String))


def _tags(values: pl.Series, n: int) -> pl.DataFrame:
    """Encode each value that is neither rare nor in almost all rows."""
    return _common(_cells(values).unique([_ROW, _NAME]), n).with_columns(pl.lit(1.0).alias(_CELL))


def _words(text: pl.Series, n: int) -> pl.DataFrame:
    """Encode each word: its count in the row · log(rows / rows with the word)."""
    words = text.str.normalize("NFKC").str.to_lowercase().str.extract_all(_WORD)
    cells = _common(_cells(words).group_by(_ROW, _NAME).agg(pl.len().alias(_CELL)), n)
    rows = (pl.col(_ROW) < n).sum().over(_NAME)
    # The number of rows with a word is counted in the first n rows only, like the words themselves.
    weighed = cells.with_columns((pl.col(_CELL) * (n / rows).log()).alias(_CELL))
    length = (pl.col(_CELL) ** 2).sum().over(_ROW).sqrt()
    return weighed.with_columns(pl.col(_CELL) / length)


def _cells(values: pl.Series) -> pl.DataFrame:
    """Return the row and the feature name of each value, or of each value of a list."""
    rows = pl.int_range(len(values), dtype=pl.UInt32, eager=True)
    cells = pl.DataFrame([rows.alias(_ROW), values.alias(_NAME)])
    if isinstance(values.dtype, pl.List):
        cells = cells.explode(_NAME)
    text = pl.col(_NAME).str.strip_chars()
    return cells.filter(text != "").with_columns(
        pl.format(f"{values.name}={{}}", text).alias(_NAME)
    )


def _common(cells: pl.DataFrame, n: int) -> pl.DataFrame:
    """Keep the names of at least `MIN_ROWS` and at most `MAX_ROW_SHARE` of the first `n` rows."""
    counts = cells.filter(pl.col(_ROW) < n).group_by(_NAME).len()
    kept = counts.filter((pl.col("len") >= MIN_ROWS) & (pl.col("len") <= MAX_ROW_SHARE * n))
    # The name breaks ties, so that the order of rows does not decide which names are kept.
    kept = kept.sort("len", _NAME, descending=[True, False]).head(MAX_VALUES)
    return cells.join(kept, on=_NAME, how="semi")


def _binned(numbers: pl.Series, at: _Place) -> pl.Series:
    """Return the bin of each number; the edges are numbers of the data."""
    at.refuse_not_finite(numbers, numbers.abs() >= _TOO_LARGE)
    training = numbers[: at.n].drop_nulls().to_numpy()
    if not len(training):
        return pl.Series(numbers.name, [None] * len(numbers), dtype=pl.String)
    # inverted_cdf returns values of the data instead of interpolated ones.
    edges = np.unique(np.quantile(training, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    bounds = pairwise(["", *map(str, edges.tolist()), ""])
    labels = pl.Series(numbers.name, [f"{low}..{high}" for low, high in bounds])
    bins = pl.Series(np.searchsorted(edges, numbers.fill_null(0).to_numpy(), "right"))
    return labels.gather(bins.set(numbers.is_null(), None))


def _vector(vectors: pl.Series, at: _Place) -> pl.DataFrame:
    """Encode each dimension that varies; a vector with a missing number has no features."""
    length = vectors.list.len()
    most = length[: at.n].drop_nulls().mode().sort()
    wanted = most[0] if len(most) else 0
    at.refuse_other_length(wanted, length != most.first())
    at.refuse_not_finite(
        vectors, vectors.list.eval(pl.element().fill_nan(None).abs() >= _TOO_LARGE).list.any()
    )
    complete = vectors.list.eval(pl.element().is_nan() | pl.element().is_null()).list.any().not_()
    rows = complete.fill_null(False).arg_true().to_numpy()
    matrix = np.asarray(vectors.gather(rows).to_list(), np.float64).reshape(len(rows), -1)
    training = matrix[rows < at.n]
    spread = training.std(axis=0) if len(training) else np.zeros(matrix.shape[1])
    kept = np.flatnonzero(spread > 0)
    size = spread[kept] * np.sqrt(matrix.shape[1])
    scaled = (matrix[:, kept] - training.mean(axis=0)[kept]) / size
    # Leading zeros keep the names in the order of the dimensions once they are sorted.
    digits = len(str(matrix.shape[1]))
    names = np.array([f"{vectors.name}={number:0{digits}}" for number in kept.tolist()], np.str_)
    return pl.DataFrame(
        {
            _ROW: np.repeat(rows, len(kept)).astype(np.uint32),
            _NAME: np.tile(names, len(rows)),
            _CELL: scaled.ravel(),
        },
        schema=_NONE.schema,
    )
