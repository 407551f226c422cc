"""Settings of a workspace that Airflow needs when it parses a DAG file.

They are read with `tomllib` alone, because importing `pipeline` takes seconds and Airflow parses
each file twice a minute (ADR 6).

Guarantees:

* Reading raises nothing: a file that cannot be read, and a cron, a time zone or a mode that
  `pipeline.workspace.config` would refuse, give the defaults. The first task of a run then opens
  the workspace and fails with the sentence of the error.
* The environment goes before the file, and both are read as `pipeline.workspace.config` reads them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter

BASELINES = ("popularity", "decayed_popularity", "personal_frequency")
"""Recipes that every run compares with."""
DEFAULT_RECIPES = (*BASELINES, "als", "blend")
"""Recipes of a workspace whose config names none."""
MODES = ("nightly", "adaptive", "both")


@dataclass(frozen=True)
class DagSchedule:
    """Section ``[schedule]`` of the config, as far as Airflow needs it.

    Attributes
    ----------
    cron, timezone
        When a nightly run is due; under the mode `adaptive`, when the policy is asked at least.
    mode
        ``nightly``: the cron starts runs; ``adaptive``: the retrain policy; ``both``: each of them.
    """

    cron: str = "0 3 * * *"
    timezone: str = "UTC"
    mode: str = "nightly"

    @property
    def by_policy(self) -> bool:
        """True if a feedback pass may request a run."""
        return self.mode != "nightly"


@dataclass(frozen=True)
class DagSettings:
    """Schedule, and names of the recipes in the order of the config, baselines first."""

    schedule: DagSchedule = DagSchedule()
    recipes: tuple[str, ...] = DEFAULT_RECIPES


def read_settings(file: Path, environment: Mapping[str, str] = os.environ) -> DagSettings:
    """Read the settings of a workspace.

    Parameters
    ----------
    file
        Its ``nightjar.toml``, which may be missing or damaged.
    environment
        Variables ``NIGHTJAR__SCHEDULE__FIELD`` go before the file.

    Returns
    -------
    The settings; defaults for what cannot be used.
    """
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # bad TOML and bad UTF-8 are a `ValueError`
        return DagSettings()
    set_outside = [
        ([part.lower() for part in name.split("__")[1:]], _literal(text))
        for name, text in sorted(environment.items())
        if name.startswith("NIGHTJAR__")
    ]
    recipes = written.get("recipes", {})
    names = [*recipes] if isinstance(recipes, dict) else []
    names += [keys[1] for keys, _ in set_outside if keys[0] == "recipes" and len(keys) > 2]
    is_named = bool(names) or "recipes" in written
    section = written.get("schedule")
    values = dict(section) if isinstance(section, dict) else {}
    values |= {keys[1]: value for keys, value in set_outside if keys[:-1] == ["schedule"]}
    return DagSettings(
        _schedule(values),
        tuple(dict.fromkeys((*BASELINES, *names))) if is_named else DEFAULT_RECIPES,
    )


def _literal(text: str) -> Any:
    """Return the value of a variable: TOML, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _schedule(values: Mapping[str, Any]) -> DagSchedule:
    given = {f.name: str(values[f.name]) for f in fields(DagSchedule) if f.name in values}
    schedule = DagSchedule(**given)
    return schedule if _is_usable(schedule) else DagSchedule()


def _is_usable(schedule: DagSchedule) -> bool:
    try:
        ZoneInfo(schedule.timezone)
        # The next instant is computed, because 31 February is a cron that never comes.
        croniter(schedule.cron).get_next()
    except (ValueError, KeyError, OSError):
        return False
    times = schedule.cron.split()
    # R is a random time, which would be another one each time that Airflow parses the file.
    is_fixed = not any(time.upper().startswith("R") for time in times)
    return len(times) == 5 and is_fixed and schedule.mode in MODES
