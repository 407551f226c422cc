"""Settings that a file contradicts: rows that fail for one setting's reason, and the next step.

Guarantees: a file waits if all of its rows, or 1 % and at least ten of them, fail for one such
reason; its message has at most three of the bad values, masked as in the quarantine.
"""

from __future__ import annotations

import json
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.events import ValidatedRows
from pipeline.data.ingest.quarantine import MASK
from pipeline.data.ingest.times import UNIT, WITHOUT_ZONE
from pipeline.data.sources.config import MappingError, Source

_ROWS: Final = 10
_SHARE: Final = 0.01
_UNKNOWN_KIND: Final = "kind_unknown"
_AVAILABLE: Final = f"{c.AVAILABLE}_unparsable"
_TIMES: Final = (c.TIMESTAMP, c.CREATED_AT)
_LIST: Final = tuple(f"{name}_list" for name in (c.EVENT_ID, c.USER_ID, c.ITEM_ID))
_COLUMNS: Final = (c.KIND, c.AVAILABLE, *_TIMES, c.EVENT_ID, c.USER_ID, c.ITEM_ID)


def refuse_wrong_setting(
    judged: ValidatedRows, source: Source, config: IngestConfig, *, source_name: str, name: str
) -> None:
    """Raise if rows are lost that a corrected setting would give.

    Parameters
    ----------
    judged
        All rows of the file.
    source, config
        Settings that the rows were validated with.
    source_name
        Name of the source in the config.
    name
        The file's name, for errors.

    Raises
    ------
    MappingError
        `ingest.wrong_setting`.
    """
    rows = judged.good.height + judged.bad.height
    failed = pl.concat([judged.bad, judged.emptied])
    reasons = failed[c.REASONS].explode(empty_as_null=False).value_counts(name="rows")
    for reason, count in reasons.sort("rows", c.REASONS, descending=True).rows():
        if count < rows and not (count >= _ROWS and count >= _SHARE * rows):
            return
        column = next((name for name in _COLUMNS if reason.startswith(f"{name}_")), None)
        if column is None:
            continue
        values = _commonest(failed, reason, column)
        line = _line(reason, values, source, config, all_rows=count == rows)
        next_step = None
        if line is not None:
            next_step = f"write into nightjar.toml: {line.replace('SOURCE', source_name)}"
        if reason in _LIST:
            next_step = (
                f"column {source.columns.get(column, column)} holds lists or objects, which are "
                "not ids; deliver one row per item"
            )
        if next_step is not None:
            shown = ", ".join(json.dumps(value, ensure_ascii=False) for value in values)
            raise MappingError(
                "ingest.wrong_setting",
                f"{count:,} of {rows:,} rows have {reason} ({shown}); nothing was stored; "
                f"{next_step}",
                where=name,
                count=count,
            )


def _commonest(failed: pl.DataFrame, reason: str, column: str) -> list[str]:
    """Return the three commonest bad values of a reason."""
    raw = failed.filter(pl.col(c.REASONS).list.contains(reason))[c.RAW]
    values = raw.str.json_path_match(f"$.{column}").drop_nulls().rename(column)
    counts = values.value_counts(name="rows").sort("rows", column, descending=[True, False])
    return list(counts[column].head(3))


def _line(
    reason: str, values: list[str], source: Source, config: IngestConfig, *, all_rows: bool
) -> str | None:
    """Return the line of nightjar.toml that may correct a reason; None if no setting does."""
    if reason == _UNKNOWN_KIND:
        kinds = [*config.kinds, *(value for value in values if value != MASK)]
        line = f"[ingest] kinds = {json.dumps(kinds, ensure_ascii=False)}"
        return f"{line}, and the weights of the new ones into [features] weights"
    if reason == _AVAILABLE:
        return (
            f'[sources.SOURCE] constants = {{ {c.AVAILABLE} = "true" }}, which ignores the column, '
            "or deliver true and false"
        )
    for column in _TIMES:
        cause = reason.removeprefix(f"{column}_")
        if cause == WITHOUT_ZONE:
            return '[sources.SOURCE] timezone = "Europe/Berlin", with the zone of these times'
        if cause.startswith(UNIT):
            return f'[sources.SOURCE] timestamp_unit = "{cause.removeprefix(UNIT)}"'
    if reason == f"{c.TIMESTAMP}_unparsable" and all_rows:
        form = (
            '[sources.SOURCE] timestamp_format = "%d.%m.%Y %H:%M", with the format of these times'
        )
        return f"{form}, and no timestamp_unit" if source.timestamp_unit else form
    return None
