"""Great Expectations suite generated from the rules, run over one batch of events.

Guarantees: one expectation per rule, named in its `meta`; an expectation that raised, or evaluated
fewer rows than the batch has, does not count as run; ids reach the library only as lengths and
codes; equal batches give equal records (random ids and times are left out).
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.data.validate.rules import CheckKind, Rule, id_bytes, unprintables

_IDS: Final = (c.EVENT_ID, c.USER_ID, c.ITEM_ID)
_CODE: Final = f"{c.EVENT_ID}_code"
_ARGUMENTS: Final = (
    "column",
    "column_list",
    "ignore_row_if",
    "min_value",
    "max_value",
    "value_set",
)
"""Arguments of an expectation that the record keeps; the others name objects of the library."""


def run_suite(batch: pl.DataFrame, rules: Sequence[Rule]) -> tuple[dict[str, int], str]:
    """Validate a batch by the rules for rows and for batches.

    Parameters
    ----------
    batch
        Events with the columns `JUDGED`.
    rules
        From `declare`.

    Returns
    -------
    Rule → number of rows that violate it, for each rule that was run on all rows; and the canonical
    JSON of the library's SUMMARY result.
    """
    gx = _library()
    context = gx.get_context(mode="ephemeral")
    # No usage data leave the machine, and no progress bars are printed.
    context.enable_analytics(enable=False)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("events")
    suite = context.suites.add(
        gx.ExpectationSuite(
            name="events", expectations=[_expectation(rule, gx.expectations) for rule in rules]
        )
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name="recent", data=asset.add_batch_definition_whole_dataframe("recent"), suite=suite
        )
    )
    result = definition.run(
        batch_parameters={"dataframe": suite_frame(batch).to_pandas()}, result_format="SUMMARY"
    )
    order = [rule.name for rule in rules]
    return _read(result.to_json_dict(), order, batch.height, gx.__version__)


def suite_frame(batch: pl.DataFrame) -> pl.DataFrame:
    """Return the frame for the library: lengths and codes of ids, other columns unchanged."""
    return batch.select(
        *(id_bytes(name).alias(f"{name}_bytes") for name in _IDS),
        *(unprintables(name).alias(f"{name}_unprintables") for name in _IDS),
        pl.col(c.EVENT_ID).rank("dense").alias(_CODE),
        pl.col(c.TIMESTAMP).dt.epoch("d").alias(c.EVENT_DAY),
        c.KIND,
        c.VALUE,
        c.TIMESTAMP,
        c.POSITION,
    )


def _library() -> ModuleType:
    """Import Great Expectations only when needed, since it takes 3 to 5 s and 220 MB."""
    # At INFO it logs a line per method when it is imported, and empty configurations in every run.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The library imports modules that Python 3.11 deprecated.
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations
    # This module sets a level of its own, for a line about a folder that it makes in every run.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.NOTSET)
    return great_expectations


def _expectation(rule: Rule, library: ModuleType) -> Any:
    meta = {"rule": rule.name}
    match rule.check:
        case CheckKind.PRESENT:
            return library.ExpectColumnValuesToNotBeNull(column=_suite_column(rule), meta=meta)
        case CheckKind.ONE_OF:
            return library.ExpectColumnValuesToBeInSet(
                column=rule.column, value_set=list(rule.values), meta=meta
            )
        case CheckKind.UNIQUE_ON_DAY:
            return library.ExpectCompoundColumnsToBeUnique(
                column_list=[_CODE, c.EVENT_DAY],
                ignore_row_if="any_value_is_missing",
                meta=meta,
            )
        case CheckKind.BYTES | CheckKind.PRINTABLE | CheckKind.BETWEEN:
            return library.ExpectColumnValuesToBeBetween(
                column=_suite_column(rule),
                min_value=rule.minimum,
                max_value=rule.maximum,
                meta=meta,
            )


def _suite_column(rule: Rule) -> str:
    if rule.column not in _IDS:
        return rule.column
    return f"{rule.column}_{'unprintables' if rule.check is CheckKind.PRINTABLE else 'bytes'}"


def _read(
    result: dict[str, Any], order: Sequence[str], height: int, version: str
) -> tuple[dict[str, int], str]:
    entries = [
        {
            "rule": entry["expectation_config"]["meta"]["rule"],
            "expectation": entry["expectation_config"]["type"],
            "arguments": {
                name: value
                for name, value in entry["expectation_config"]["kwargs"].items()
                if name in _ARGUMENTS
            },
            "success": entry["success"],
            "result": entry["result"],
            "exception": _exception(entry["exception_info"]),
        }
        for entry in result["results"]
    ]
    # The library returns results by column, not in the order of the rules.
    entries.sort(key=lambda entry: order.index(entry["rule"]))
    violations = {
        entry["rule"]: int(entry["result"]["unexpected_count"])
        for entry in entries
        if entry["exception"] is None and entry["result"].get("element_count") == height
    }
    record = {
        "great_expectations": version,
        "success": result["success"],
        "statistics": result["statistics"],
        "results": entries,
    }
    # Strict JSON has no infinity, so such a value becomes text.
    plain = json.loads(json.dumps(record), parse_constant=_constant_text)
    return violations, json.dumps(plain, sort_keys=True, allow_nan=False)


def _exception(info: dict[str, Any]) -> str | None:
    """Return the messages of exceptions; the library nests them by metric if one raised."""
    nested = [info] if "raised_exception" in info else list(info.values())
    messages = [str(part["exception_message"]) for part in nested if part["raised_exception"]]
    return "; ".join(sorted(messages)) or None


def _constant_text(constant: str) -> str:
    return str(float(constant))
