"""Questions that runs ask of the ledger, answered for any instant.

Built once per task from the entries;
`AsOfView` and `Night` hold one.

Guarantees:

* The champion of an instant is that of the last publication with an earlier as-of, so a run that
  is repeated is compared with the champion that it had.
* Of two decisions for one as-of the later line counts.
* Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, TypeVar

from pipeline.data.features import FeaturesConfig
from pipeline.data.targets import Task
from pipeline.models.contract import Recipe
from pipeline.stores.ledger import Ledger
from pipeline.workspace.ledger import (
    AnchorEntry,
    CalibrationEntry,
    CandidateEntry,
    Champion,
    ComparisonKey,
    DecisionEntry,
    Entry,
    LedgerEntry,
    OverrideEntry,
    PatchEntry,
    PublicationEntry,
    entries_of,
)

MAX_PAST_NIGHTS: Final = 60
"""Earlier runs that a page shows."""
CANDIDATE: Final = "tuned"
"""Name of a tuned recipe in the run that evaluates it."""
JUST_AFTER: Final = timedelta(microseconds=1)
"""``as_of + JUST_AFTER``: a reader that comes right after the run of `as_of`."""
_SEED_SD_LASTS: Final = timedelta(days=90)
_E = TypeVar("_E", bound=LedgerEntry)


@dataclass(frozen=True)
class LedgerHistory:
    """All entries of a ledger, oldest line first. ``before`` is exclusive, ``until`` inclusive."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, ledger: Ledger) -> LedgerHistory:
        """Read a ledger."""
        return cls(entries_of(ledger))

    @cached_property
    def publications(self) -> tuple[PublicationEntry, ...]:
        """Base publications by generation."""
        return tuple(sorted(self._of(PublicationEntry), key=lambda entry: entry.generation))

    @cached_property
    def patches(self) -> tuple[PatchEntry, ...]:
        """Patches in the order of their lines."""
        return self._of(PatchEntry)

    @cached_property
    def overrides(self) -> Mapping[str, OverrideEntry]:
        """Decisions that a person changed, by run."""
        return {entry.run_id: entry for entry in self._of(OverrideEntry)}

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of all entries."""
        return frozenset(entry.key for entry in self.entries)

    # ------------------------------------------------------------ champions

    def accepted(self, before: datetime) -> tuple[Champion, ...]:
        """Return what runs with an earlier as-of published, oldest generation first."""
        return tuple(entry.champion for entry in self.publications if entry.as_of < before)

    def champion(self, before: datetime) -> Champion | None:
        """Return the champion that a run of this as-of finds."""
        return next(reversed(self.accepted(before)), None)

    @property
    def live(self) -> PublicationEntry | None:
        """The newest base publication."""
        return next(reversed(self.publications), None)

    def publication_of(self, run_id: str) -> PublicationEntry | None:
        """Return the publication of a run."""
        return next((entry for entry in self.publications if entry.run_id == run_id), None)

    def versions(self) -> dict[int, str]:
        """Return the runs of all published model versions, by number."""
        return {int(entry.model_version): entry.run_id for entry in self.publications}

    def version(self, number: int) -> PublicationEntry | None:
        """Return the newest publication of a model version."""
        publications = (e for e in reversed(self.publications) if int(e.model_version) == number)
        return next(publications, None)

    # ------------------------------------------------------------ decisions

    @cached_property
    def decisions(self) -> tuple[DecisionEntry, ...]:
        """Decisions by as-of, one per as-of."""
        by_as_of = {entry.as_of: entry for entry in self._of(DecisionEntry)}
        return tuple(by_as_of[as_of] for as_of in sorted(by_as_of))

    def decisions_before(self, before: datetime) -> tuple[DecisionEntry, ...]:
        """Return the decisions of runs with an earlier as-of, oldest first."""
        return tuple(entry for entry in self.decisions if entry.as_of < before)

    def decisions_until(self, until: datetime) -> tuple[DecisionEntry, ...]:
        """Return the decisions of runs up to an as-of, oldest first."""
        return tuple(entry for entry in self.decisions if entry.as_of <= until)

    def last_decision(self, until: datetime | None = None) -> DecisionEntry | None:
        """Return the newest decision up to an as-of, or of all."""
        decisions = self.decisions if until is None else self.decisions_until(until)
        return next(reversed(decisions), None)

    def last_task(self, before: datetime) -> Task | None:
        """Return the task of the newest decision before an as-of."""
        last = next(reversed(self.decisions_before(before)), None)
        return None if last is None else last.comparison_key.task

    def last_holdout_days(self, before: datetime) -> int | None:
        """Return the longest holdout block before an as-of: it never shrinks.

        The first model's block does not count: it is as long as possible, not as long as needed.
        """
        decisions = self._decided(before)
        return max(
            (entry.holdout_days for entry in decisions if entry.kind != "first"), default=None
        )

    def last_weights(self, before: datetime, configured: FeaturesConfig) -> FeaturesConfig | None:
        """Return the event weights that the newest run before an as-of chose for this config."""
        decisions = [e for e in self._decided(before) if e.weights.configured == configured]
        newest = max(decisions, key=lambda entry: entry.as_of, default=None)
        return None if newest is None else newest.weights.chosen

    def selected_recipes(
        self, recipes: Mapping[str, Recipe], before: datetime
    ) -> dict[str, Recipe]:
        """Replace recipes by what earlier runs selected for their free parameters."""
        known: dict[str, Recipe] = {}
        for entry in sorted(self._decided(before), key=lambda entry: entry.as_of):
            known |= entry.selected_recipes
        return {name: known.get(recipe.hash, recipe) for name, recipe in recipes.items()}

    def comparable(self, before: datetime, key: ComparisonKey) -> tuple[DecisionEntry, ...]:
        """Return all decisions before an as-of whose figures are comparable, oldest first."""
        decisions = [entry for entry in self._decided(before) if entry.comparison_key == key]
        return tuple(sorted(decisions, key=lambda entry: entry.as_of))

    # ------------------------------------------------------------ other types

    def anchors(self, before: datetime, key: ComparisonKey) -> tuple[AnchorEntry, ...]:
        """Return the anchors that a person set before an as-of, oldest first."""
        anchors = [
            entry
            for entry in self._of(AnchorEntry)
            if entry.as_of < before and entry.comparison_key == key
        ]
        return tuple(sorted(anchors, key=lambda entry: entry.as_of))

    def last_calibration(self, until: datetime) -> CalibrationEntry | None:
        """Return the newest calibration up to an as-of."""
        calibrations = [entry for entry in self._of(CalibrationEntry) if entry.as_of <= until]
        return max(calibrations, key=lambda entry: entry.as_of, default=None)

    def seed_sds(self, as_of: datetime, task: Task | None, k: int) -> dict[str, float]:
        """Return the seed SD of each family that was calibrated in the 90 days before an as-of.

        Only calibrations of the same task and list length count.
        """
        calibrations = [
            entry
            for entry in self._of(CalibrationEntry)
            if as_of - _SEED_SD_LASTS <= entry.as_of <= as_of and (entry.task, entry.k) == (task, k)
        ]
        calibrations.sort(key=lambda entry: entry.as_of)
        return {entry.family: entry.seed_sd for entry in calibrations}

    def with_candidate(
        self, recipes: Mapping[str, Recipe], before: datetime, champion: Champion | None
    ) -> dict[str, Recipe]:
        """Add the newest tuned recipe found before an as-of, unless it competes already."""
        candidates = [entry for entry in self._of(CandidateEntry) if entry.as_of < before]
        newest = max(reversed(candidates), key=lambda entry: entry.as_of, default=None)
        if newest is None:
            return dict(recipes)
        hashes = {recipe.hash for recipe in recipes.values()}
        if champion is not None:
            hashes.add(champion.recipe.hash)
        if newest.recipe.hash in hashes:
            return dict(recipes)
        name = CANDIDATE if CANDIDATE not in recipes else f"{CANDIDATE}@{newest.recipe.hash[:6]}"
        return {**recipes, name: newest.recipe}

    def _decided(self, before: datetime) -> tuple[DecisionEntry, ...]:
        """Return every decision before an as-of in the order of the lines."""
        return tuple(entry for entry in self._of(DecisionEntry) if entry.as_of < before)

    def _of(self, kind: type[_E]) -> tuple[_E, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, kind))


def references(
    accepted: Sequence[Champion], as_of: datetime, fits: Callable[[Champion], bool]
) -> dict[str, Champion]:
    """Return the accepted runs that a refresh is compared with: ``last`` and ``month``.

    Parameters
    ----------
    accepted
        Oldest first.
    fits
        Whether a run's evaluation scorer has seen nothing of this holdout. When the holdout grows,
        the newest ones have: the newest one that has not is the reference.

    Returns
    -------
    ``month`` is the one nearest to 30 days before `as_of`, of those 21 to 45 days before; either
    may be absent.
    """
    last = next((champion for champion in reversed(accepted) if fits(champion)), None)
    if last is None:
        return {}
    days = {champion.run_id: (as_of - champion.as_of) / timedelta(days=1) for champion in accepted}
    month = [c for c in accepted if 21 <= days[c.run_id] <= 45 and fits(c)]
    chosen = {"last": last}
    if month:
        chosen["month"] = min(month, key=lambda champion: abs(days[champion.run_id] - 30))
    return chosen
