"""JSON lines -> text columns; whole numbers keep all digits, nested values stay JSON.

Guarantees: a line that is not a JSON object, is nested too deep, or repeats a key within an object
is broken, and the others are kept; blank lines are skipped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline.data.sources.config import EXACT, Limits
from pipeline.data.sources.streams import Block, Broken
from pipeline.errors import UnsafeInputError

_JSON = "broken_json"
_SURROGATES: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escaped surrogates. A line with one of them is broken unless it has the other of the pair."""


class _Doubled(ValueError):
    """An object repeats a key, so its value is ambiguous."""


def parse_jsonl(blocks: Iterator[bytes], name: str, limits: Limits) -> Iterator[Block]:
    """Parse a file of JSON lines.

    Parameters
    ----------
    blocks
        Text in whole lines, from `streams.blocks`.
    name
        The file's name, for errors.
    limits
        Limits of keys, depth, row length and bad rows.

    Yields
    ------
    The rows; the columns of a block are the keys of its objects.

    Raises
    ------
    UnsafeInputError
        `source.too_many_columns`: too many different keys.
    """
    line = 1
    seen: set[str] = set()
    for block in blocks:
        rows = _parse_whole_block(block, line, limits)
        if rows is None:
            rows = _parse_line_by_line(block, line, limits)
        seen.update(rows.frame.columns)
        if len(seen) > limits.max_columns:
            raise UnsafeInputError(
                "source.too_many_columns",
                f"has more than {limits.max_columns} different keys; split the file, or raise "
                "ingest.limits.max_columns",
                where=name,
            )
        yield rows
        line += block.count(b"\n")


def _parse_whole_block(block: bytes, line: int, limits: Limits) -> Block | None:
    """Parse all lines in one call; ``None`` if a line may be broken, blank or over a limit."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.insert(ends[:-1] + 1, 0, 0)
    # Brackets per line bound the depth before any parser recurses into it.
    opened = np.searchsorted(np.flatnonzero((data == ord("{")) | (data == ord("["))), ends)
    if (
        np.diff(opened, prepend=0).max() > limits.max_depth
        or (ends - starts).max() > limits.max_row_bytes
        or (data[starts] != ord("{")).any()
        or _SURROGATES.search(block)
    ):
        return None
    try:
        objects = _load(b"[" + block[:-1].replace(b"\n", b",") + b"]", parse_float=_exact)
    except (ValueError, RecursionError):  # deep nesting exceeds json's recursion limit
        return None
    # One key more than allowed is enough for `parse_jsonl` to refuse the file.
    # Most objects have the same keys, which are compared as a whole.
    keys = dict.fromkeys(chain.from_iterable(dict.fromkeys(map(tuple, objects))))
    frame = _read(block, list(islice(keys, limits.max_columns + 1)))
    if frame is None or frame.height != len(ends) or len(objects) != len(ends):
        return None
    return Block(frame, pl.Series(range(line, line + len(ends)), dtype=pl.Int64))


def _parse_line_by_line(block: bytes, line: int, limits: Limits) -> Block:
    """Parse each line by itself, and report the broken ones with their reasons."""
    good: list[tuple[int, bytes]] = []
    broken: list[Broken] = []
    keys: dict[str, None] = {}
    for number, text in enumerate(block.split(b"\n")[:-1], start=line):
        large: list[float] = []
        value, reason = _judge(text, limits, large)
        if reason:
            broken.append(Broken.of(text, number, reason))
            if len(broken) > limits.max_bad_rows:
                break
        elif value is not None:
            keys.update(dict.fromkeys(value) if len(keys) <= limits.max_columns else {})
            # Polars would write a large float as an integer that it may not have been.
            good.append((number, json.dumps(value).encode() if large else text))
    frames = [pl.DataFrame(schema=dict.fromkeys(keys, pl.String))]
    numbers: list[int] = []
    for frame, run in _readable(good, list(keys)):
        if frame is None:
            broken.extend(Broken.of(text, number, _JSON) for number, text in run)
        else:
            frames.append(frame)
            numbers.extend(number for number, _ in run)
    broken.sort(key=lambda row: row.line)
    return Block(pl.concat(frames), pl.Series(numbers, dtype=pl.Int64), broken)


def _judge(text: bytes, limits: Limits, large: list[float]) -> tuple[dict[str, Any] | None, str]:
    """Return the line's object, or the reason why it is broken; neither for a blank line."""

    # A float from `EXACT` on becomes text in scientific notation, and is added to `large`.
    def number(digits: str) -> float | str:
        value = _finite(digits)
        if abs(value) < EXACT:
            return value
        large.append(value)
        return f"{value:.16E}"

    if len(text) > limits.max_row_bytes:
        return None, "row_too_long"
    if not text.strip():
        return None, ""
    try:
        value = _load(text, parse_float=number)
        # Encoding fails for half a character.
        if _SURROGATES.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except _Doubled:
        return None, "doubled_key"
    except (ValueError, RecursionError):
        return None, _JSON
    if not isinstance(value, dict):
        return None, "no_json_object"
    if _too_deep(value, limits.max_depth):
        return None, "nested_too_deep"
    return value, ""


def _load(text: bytes, **options: Any) -> Any:
    return json.loads(text, object_pairs_hook=_single, parse_constant=_finite, **options)


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _Doubled
    return row


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _exact(text: str) -> float:
    number = float(text)
    if abs(number) >= EXACT:
        raise ValueError(f"{text} may stand for several integers")
    return number


def _readable(
    lines: Sequence[tuple[int, bytes]], keys: list[str]
) -> Iterator[tuple[pl.DataFrame | None, Sequence[tuple[int, bytes]]]]:
    """Yield runs of lines with their frame; ``None`` for a line that polars refuses."""
    if not lines:
        return
    frame = _read(b"\n".join(text for _, text in lines) + b"\n", keys)
    if frame is not None and frame.height == len(lines):
        yield frame, lines
    elif len(lines) == 1:
        yield None, lines
    else:
        # Halving finds one refused line in few calls of the fast parser.
        half = len(lines) // 2
        yield from _readable(lines[:half], keys)
        yield from _readable(lines[half:], keys)


def _read(block: bytes, keys: list[str]) -> pl.DataFrame | None:
    try:
        return pl.read_ndjson(block, schema=dict.fromkeys(keys, pl.String))
    except pl.exceptions.PolarsError:
        return None


def _too_deep(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_too_deep(child, depth - 1) for child in inner)
