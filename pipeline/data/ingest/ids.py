"""Ids of users, items and events: from the text of a column of any type to one form.

Guarantees: the form of an id does not depend on the format of the file; a change of an id, and an
id that cannot be used, has a name and a count; to read an id again changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.sources.config import EXACT
from pipeline.data.validate.rules import text_bytes

# Not `007.0`, which no float is written as.
_FLOAT: Final = r"^(-?(?:0|[1-9][0-9]*))\.0+$"
_LOST_DIGITS: Final = r"^-?[0-9](\.[0-9]+)?[eE]\+[0-9]{2,}$"
_NO_BREAK: Final = r"[\x{A0}\x{2007}\x{202F}]"
_BRACKETS: Final = r"(?s)^(\[.*\]|\{.*\})$"
_RARE: Final = (b".", b"+", b"*", b"[", b"{")
"""Characters of visible ASCII in ids that may need a change or have a reason."""
_DOUBTFUL: Final = ("0", "-1")
_DOUBTFUL_SHARE: Final = 0.01


def read_ids(
    text: pl.DataFrame, columns: Sequence[str], missing: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    """Bring the ids of a file into one form.

    Outer white space is removed, no-break spaces become spaces, and an integer that is written as a
    float (`12345.0`) becomes the integer. A word for a missing id becomes null.

    Parameters
    ----------
    text
        String columns.
    columns
        Names of the columns with ids.
    missing
        Words for a missing id.

    Returns
    -------
    The frame with the new ids; one flag per reason why an id cannot be used; and the number of rows
    per kind of change, such as ``item_id_float``.
    """
    # The first one, which is never true, gives the others their length.
    flags = {"none": pl.repeat(False, text.height, eager=True)}
    changed: Counter[str] = Counter()
    ids = []
    for name in columns:
        form = text[name]
        if not _is_usual(form):
            form, changes = _in_one_form(form)
            changed.update({f"{name}_{change}": rows for change, rows in changes.items()})
            large = form.str.extract(_FLOAT).cast(pl.Float64, strict=False).abs() >= EXACT
            lost = large.fill_null(False) | form.str.contains(_LOST_DIGITS)
            flags[f"{name}_lost_digits"] = lost.fill_null(False)
            flags[f"{name}_reserved"] = (form == c.FALLBACK_USER).fill_null(False)
            flags[f"{name}_list"] = _are_lists(form)
        ids.append(_without(form, missing))
    return text.with_columns(ids), pl.DataFrame(flags), changed


def normalised(text: pl.Series) -> pl.Series:
    """Return ids in Unicode NFC, so that two encodings of one id are equal."""
    # Pure ASCII is in NFC already, and the check is much cheaper than normalising.
    if text.str.len_bytes().sum() == text.str.len_chars().sum():
        return text
    return text.str.normalize("NFC")


def one_form(raw: str) -> str:
    """Return an id that a user gave in the form that files get."""
    return str(_in_one_form(pl.Series([raw]))[0][0] or raw)


def doubtful(rows: pl.DataFrame) -> Counter[str]:
    """Count ids such as ``item_id 0`` that may mean that there is none, if over 1 % of the rows."""
    counts: Counter[str] = Counter()
    for name in (c.USER_ID, c.ITEM_ID):
        for word in _DOUBTFUL if name in rows.columns else ():
            count = int((rows[name] == word).sum())
            if count > _DOUBTFUL_SHARE * rows.height:
                counts[f"{name} {word}"] = count
    return counts


def _is_usual(ids: pl.Series) -> bool:
    """Return True if no id needs a change or has a reason, as one look at all bytes shows."""
    characters = text_bytes(ids)
    if not characters.size:
        return True
    if characters.min() < ord("!") or characters.max() > ord("~"):
        return False
    data = characters.tobytes()
    return not any(rare in data for rare in _RARE)


def _in_one_form(ids: pl.Series) -> tuple[pl.Series, dict[str, int]]:
    """Return ids in one form, and kind of change -> rows with it."""
    ids = normalised(ids)
    spaced = ids.str.replace_all(_NO_BREAK, " ")
    bare = spaced.str.strip_chars()
    number = bare.str.extract(_FLOAT)
    exact = (number.cast(pl.Float64, strict=False).abs() < EXACT).fill_null(False)
    changes = {"no_break_space": spaced != ids, "white_space": bare != spaced, "float": exact}
    counts = {change: int(rows.sum()) for change, rows in changes.items() if rows.any()}
    return number.zip_with(exact, bare), counts


def _are_lists(ids: pl.Series) -> pl.Series:
    """Flag lists and objects, which all readers give as JSON."""
    flags = ids.str.contains(_BRACKETS).fill_null(False)
    for place in flags.arg_true():
        try:
            json.loads(ids[int(place)])
        except (ValueError, RecursionError):  # an id such as [1a]
            flags[int(place)] = False
    return flags


def _without(ids: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Replace empty ids and the words for a missing one by null."""
    absent = ids.is_in(["", *missing]).fill_null(False)
    return ids.set(absent, None) if absent.any() else ids
