"""Who is champion, read from the ledger: for any instant, not only for now.

Promises: the champion of an instant is the one of the last publication whose as-of lies before it,
so a night that is run again is judged against the champion it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.base import format_instant, parse_instant
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from
from pipeline.workspace.workspace import Workspace

PUBLICATION = "publication"
PATCH = "patch"
DECISION = "decision"
ACCEPTANCE = "acceptance"
ANCHOR = "anchor"
CALIBRATION = "calibration"
"""Types of ledger lines: a swap, a patch of it, what a gate decided, what a person made of it, an
anchor that a person set, what the gate's own error rate was found to be."""
PROMOTIONS = ("first", "switch", "refresh")
"""Decisions that put a model before people."""
MAX_PAST_NIGHTS = 60
"""Earlier nights that a page shows."""
_TAU_LASTS = timedelta(days=90)


@dataclass(frozen=True)
class Champion:
    """A recipe that was published, and the night that published it.

    Attributes
    ----------
    name
        The recipe's name in the config of its night.
    run_id, as_of
        That night.
    publication_id, generation, model_version
        What it put before people.
    """

    name: str
    recipe: Recipe
    run_id: str
    as_of: datetime
    publication_id: str
    generation: int
    model_version: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, the shape of a ledger line."""
        return {
            "name": self.name,
            "recipe": self.recipe.model_dump(mode="json"),
            "run_id": self.run_id,
            "as_of": format_instant(self.as_of),
            "publication_id": self.publication_id,
            "generation": self.generation,
            "model_version": self.model_version,
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Champion:
        """Rebuild from `to_dict`; further fields are ignored."""
        return cls(
            name=line["name"],
            recipe=recipe_from(line["recipe"]),
            run_id=line["run_id"],
            as_of=parse_instant(line["as_of"]),
            publication_id=line["publication_id"],
            generation=line["generation"],
            model_version=line["model_version"],
        )


def published(entries: Iterable[Mapping[str, Any]]) -> tuple[Champion, ...]:
    """Return everything that was published, oldest first."""
    lines = [Champion.from_dict(e) for e in entries if e["type"] == PUBLICATION]
    return tuple(sorted(lines, key=lambda x: x.generation))


def accepted_before(
    entries: Iterable[Mapping[str, Any]], instant: datetime
) -> tuple[Champion, ...]:
    """Return what was published by nights with an as-of before `instant`, oldest first."""
    return tuple(x for x in published(entries) if x.as_of < instant)


def seed_spreads(
    entries: Iterable[Mapping[str, Any]], as_of: datetime, policy: str | None, k: int
) -> dict[str, float]:
    """Return the spread over training seeds (τ) that was measured of each family, if lately.

    A calibration counts for 90 days, for lists of the same length and the same seen policy.
    """
    found = [
        e
        for e in entries
        if e["type"] == CALIBRATION
        and as_of - _TAU_LASTS <= parse_instant(e["as_of"]) <= as_of
        and (e["policy"], e["k"]) == (policy, k)
    ]
    found.sort(key=lambda e: parse_instant(e["as_of"]))
    return {str(e["family"]): float(e["tau"]) for e in found}


def references(
    accepted: Sequence[Champion], as_of: datetime, fits: Callable[[Champion], bool]
) -> dict[str, Champion]:
    """Return the accepted nights that a refresh is compared with: ``last`` and ``month``.

    Parameters
    ----------
    accepted
        Oldest first.
    fits
        Whether a night's evaluation scorer has seen nothing of tonight's holdout. When the holdout
        grows, the newest ones have: the newest one that has not is the reference.

    Returns
    -------
    ``month`` is the one nearest to 30 days before `as_of`, of those 21 to 45 days before; either
    may be absent.
    """
    last = next((night for night in reversed(accepted) if fits(night)), None)
    if last is None:
        return {}
    ages = {night.run_id: (as_of - night.as_of) / timedelta(days=1) for night in accepted}
    month = [night for night in accepted if 21 <= ages[night.run_id] <= 45 and fits(night)]
    found = {"last": last}
    if month:
        found["month"] = min(month, key=lambda night: abs(ages[night.run_id] - 30))
    return found


def last_block_days(entries: Iterable[Mapping[str, Any]], as_of: datetime) -> int | None:
    """Return the length of the last night's block before `as_of`, which never shrinks.

    The first model's block does not count: it is as long as can be, not as long as needed.
    """
    nights = [
        e
        for e in entries
        if e["type"] == DECISION and e["kind"] != "first" and parse_instant(e["as_of"]) < as_of
    ]
    return max((int(e["block_days"]) for e in nights), default=None)


def last_judged(
    entries: Iterable[Mapping[str, Any]], instant: datetime
) -> tuple[datetime, str] | None:
    """Return as-of and run of the newest night up to `instant` that came to a decision."""
    judged = [
        (parse_instant(e["as_of"]), str(e["run_id"])) for e in entries if e["type"] == DECISION
    ]
    return max((night for night in judged if night[0] <= instant), default=None)


def last_policy(entries: Iterable[Mapping[str, Any]], as_of: datetime) -> str | None:
    """Return the seen policy of the last decision before `as_of`."""
    lines = [e for e in entries if e["type"] == DECISION and parse_instant(e["as_of"]) < as_of]
    lines.sort(key=lambda entry: parse_instant(entry["as_of"]))
    return str(lines[-1]["task"]["policy"]) if lines else None


def last_weights(
    entries: Iterable[Mapping[str, Any]], as_of: datetime, asked: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the weights of events that the last night before `as_of` chose for the same config."""
    lines = [e for e in entries if e["type"] == DECISION and parse_instant(e["as_of"]) < as_of]
    lines = [e for e in lines if e.get("weights", {}).get("asked") == asked]
    newest = max(lines, key=lambda entry: parse_instant(entry["as_of"]), default=None)
    return None if newest is None else dict(newest["weights"]["chosen"])


def recalled(
    recipes: Mapping[str, Recipe], entries: Iterable[Mapping[str, Any]], as_of: datetime
) -> dict[str, Recipe]:
    """Put what earlier nights chose for a recipe in its place."""
    known: dict[str, Any] = {}
    lines = [e for e in entries if e["type"] == DECISION and parse_instant(e["as_of"]) < as_of]
    for line in sorted(lines, key=lambda entry: parse_instant(entry["as_of"])):
        known |= line.get("settled", {})
    return {n: recipe_from(known[r.hash]) if r.hash in known else r for n, r in recipes.items()}


def decisions_before(ws: Workspace, instant: datetime) -> list[dict[str, Any]]:
    """Return the newest lines of decisions before an instant, oldest first; one a night."""
    nights: dict[datetime, dict[str, Any]] = {}
    for entry in ws.ledger.entries():
        if entry["type"] == DECISION and (as_of := parse_instant(entry["as_of"])) < instant:
            nights[as_of] = entry
    return [nights[as_of] for as_of in sorted(nights)][-MAX_PAST_NIGHTS:]


CANDIDATE = "candidate"


NAME = "tuned"
"""What a candidate is called in its night."""


@dataclass(frozen=True)
class Candidate:
    """A found recipe.

    Attributes
    ----------
    as_of
        Of the study; nothing of the holdout of a later night was looked at.
    start, value
        Mean NDCG on the study's windows: of where the search began, of the recipe.
    """

    recipe: Recipe
    as_of: datetime
    study: str
    sentence: str
    start: float
    value: float

    @property
    def key(self) -> str:
        """The key of its ledger line: a study may find several, each once."""
        return f"{CANDIDATE}:{self.study}:{self.recipe.hash}"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, the shape of a ledger line."""
        return {
            "name": NAME,
            "recipe": self.recipe.model_dump(mode="json"),
            "as_of": format_instant(self.as_of),
            "study": self.study,
            "sentence": self.sentence,
            "start": self.start,
            "value": self.value,
        }


def with_candidate(
    chosen: Mapping[str, Recipe],
    entries: Iterable[Mapping[str, Any]],
    as_of: datetime,
    champion: Champion | None,
) -> dict[str, Recipe]:
    """Add the newest candidate found before `as_of` to the recipes of a night."""
    lines = [e for e in entries if e["type"] == CANDIDATE and parse_instant(e["as_of"]) < as_of]
    if not lines:
        return dict(chosen)
    newest = max(reversed(lines), key=lambda line: parse_instant(line["as_of"]))
    found = recipe_from(newest["recipe"])
    known = {recipe.hash for recipe in chosen.values()}
    if champion is not None:
        known.add(champion.recipe.hash)
    if found.hash in known:
        return dict(chosen)
    name = NAME if NAME not in chosen else f"{NAME}@{found.hash[:6]}"
    return {**chosen, name: found}
