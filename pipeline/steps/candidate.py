"""A recipe that tuning found: it stands in the ledger until a night's gate has judged it.

Promises: a night competes with the newest candidate found before its as-of, and with none that is
the champion already, or a configured recipe; a candidate never reaches people without the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.base import format_instant, parse_instant
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from
from pipeline.steps.champion import Champion

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
