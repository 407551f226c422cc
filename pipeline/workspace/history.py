"""Queries on the ledger, for any instant.

Built once per task from the entries; `AsOfView` and `Night` hold one.

Guarantees:

* The champion of an instant is that of the last publication with an earlier as-of, so a run that
  is repeated is compared with the champion that it had.
* Of two decisions for one as-of the later line counts.
* No method reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter
from typing import Final, TypeVar

from pipeline.data.features import FeaturesConfig
from pipeline.data.split import PinnedTask
from pipeline.data.targets import Task
from pipeline.models.contract import Recipe
from pipeline.stores.ledger import Ledger
from pipeline.workspace.ledger import (
    AnchorEntry,
    CalibrationEntry,
    CandidateEntry,
    Champion,
    ComparisonKey,
    Decided,
    DecisionEntry,
    Entry,
    LedgerEntry,
    OverrideEntry,
    PublicationEntry,
    StepEntry,
    TargetEntry,
    entries_of,
)

MAX_PAST_NIGHTS: Final = 60
"""Number of earlier runs on a page."""
CANDIDATE: Final = "tuned"
"""Name of a tuned recipe in the run that evaluates it."""
AGAIN: Final = "@again"
"""End of the name of a candidate whose open hyperparameters were selected again."""
JUST_AFTER: Final = timedelta(microseconds=1)
"""``as_of + JUST_AFTER`` includes the run of `as_of`: instants are whole microseconds."""
_SHRINKS_AFTER: Final = timedelta(days=28)
_LEAST_RUNS: Final = 4
"""Days, and runs in them, in which a shorter holdout must have had enough users."""
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
        publications = (entry for entry in self.entries if isinstance(entry, PublicationEntry))
        return tuple(sorted(publications, key=attrgetter("generation")))

    @cached_property
    def steps(self) -> Mapping[tuple[str, str], StepEntry]:
        """Steps whose output goes live, by run and step."""
        steps = (entry for entry in self.entries if isinstance(entry, StepEntry))
        return {(entry.run_id, entry.step): entry for entry in steps}

    @cached_property
    def overrides(self) -> Mapping[str, OverrideEntry]:
        """Decisions that a user changed, by run."""
        return {entry.run_id: entry for entry in self.entries if isinstance(entry, OverrideEntry)}

    # ------------------------------------------------------------ champions

    def accepted(self, before: datetime) -> tuple[Champion, ...]:
        """Return the publications of runs with an earlier as-of, oldest generation first."""
        return tuple(entry for entry in self.publications if entry.as_of < before)

    def reference_runs(self, before: datetime) -> tuple[Champion, ...]:
        """Return the accepted runs that tonight's fit may be compared with, oldest first."""
        # A user who accepts a run declares its data healthy: earlier ones no longer count.
        by_hand = [entry.as_of for entry in self.overrides.values() if entry.as_of < before]
        since = max(by_hand, default=None)
        accepted = self.accepted(before)
        return tuple(entry for entry in accepted if since is None or entry.as_of >= since)

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

    @property
    def by_version(self) -> dict[int, PublicationEntry]:
        """The newest publication of each model version, by its number."""
        return {int(entry.model_version): entry for entry in self.publications}

    # ------------------------------------------------------------ decisions

    def decision_of(self, run_id: str) -> Decided | None:
        """Return the decision of a run: the one that a user changed, else the gate's."""
        decisions = (entry for entry in self.entries if isinstance(entry, DecisionEntry))
        gate = next((entry for entry in decisions if entry.run_id == run_id), None)
        return self.overrides.get(run_id, gate)

    @cached_property
    def decisions(self) -> tuple[DecisionEntry, ...]:
        """Decisions by as-of, one per as-of."""
        # A later line of the same as-of replaces the earlier one in its place.
        return tuple({entry.as_of: entry for entry in self._by_as_of(DecisionEntry)}.values())

    def decisions_before(self, before: datetime) -> tuple[DecisionEntry, ...]:
        """Return the decisions of runs with an earlier as-of, oldest first."""
        return tuple(entry for entry in self.decisions if entry.as_of < before)

    def last_decision(self, until: datetime | None = None) -> DecisionEntry | None:
        """Return the newest decision up to an as-of, or of all."""
        decisions = self.decisions if until is None else self.decisions_before(until + JUST_AFTER)
        return next(reversed(decisions), None)

    def pinned(self, before: datetime, enough: int) -> PinnedTask:
        """Return the task and the holdout length that earlier runs chose.

        Parameters
        ----------
        before
            Only runs with an earlier as-of count.
        enough
            Number of users of a holdout by which the task is pinned, and the length may shrink.
        """
        past = self.decisions_before(before)
        able = [entry for entry in past if most_users(entry) >= enough]
        key = able[-1].comparison_key if able else None
        kinds = None if key is None else key.target_kinds
        # A target that a user chose counts until a run has pinned another one.
        by_hand = next(reversed(self._by_as_of(TargetEntry, before)), None)
        if by_hand is not None and (not able or by_hand.as_of >= able[-1].as_of):
            kinds = by_hand.target_kinds
        # The first model's block does not count: it is as long as possible, not as needed.
        lengths = [entry.holdout_days for entry in past if entry.kind != "first"]
        return PinnedTask(
            task=None if key is None else key.task,
            target_kinds=kinds,
            holdout_days=lengths[-1] if lengths else None,
            shorter=_always_enough(
                [entry for entry in past if entry.as_of >= before - _SHRINKS_AFTER], enough
            ),
            waited=bool(past) and past[-1].decision.waiting,
        )

    def last_weights(self, before: datetime, configured: FeaturesConfig) -> FeaturesConfig | None:
        """Return the event weights that the newest run before an as-of chose.

        Parameters
        ----------
        configured
            Only runs with these configured weights count.
        """
        decisions = self._by_as_of(DecisionEntry, before)
        decisions = [entry for entry in decisions if entry.weights.configured == configured]
        newest = max(decisions, key=attrgetter("as_of"), default=None)
        return None if newest is None else newest.weights.chosen

    def selected_recipes(
        self, recipes: Mapping[str, Recipe], before: datetime
    ) -> dict[str, Recipe]:
        """Replace recipes by the ones that earlier runs selected for their open parameters.

        Parameters
        ----------
        recipes
            By name, as configured.
        """
        selected: dict[str, Recipe] = {}
        for entry in self._by_as_of(DecisionEntry, before):
            # Oldest first, so the newest selection for a recipe stays.
            selected |= entry.selected_recipes
        return {name: selected.get(recipe.hash, recipe) for name, recipe in recipes.items()}

    def selected_again(
        self, configured: Mapping[str, Recipe], before: datetime, after: timedelta
    ) -> dict[str, Recipe]:
        """Return the candidates that a new selection of open hyperparameters has made or must make.

        A selection is due some time after the last one, or once a run since then reported drift of
        taste. What it finds competes with the earlier selection, as a tuned recipe does.

        Parameters
        ----------
        configured
            Recipes by name, as configured.
        before
            As-of of the run.
        after
            Age at which a selection is due again.

        Returns
        -------
        By name with `AGAIN`: a recipe that is still open if the run must select it, else the one
        that was found. A recipe that was never selected is absent.
        """
        past = self._by_as_of(DecisionEntry, before)
        recipes: dict[str, Recipe] = {}
        for name, recipe in configured.items():
            first = [entry for entry in past if recipe.hash in entry.selected_recipes]
            again = [entry for entry in past if recipe.hash in entry.selected_again]
            if not recipe.has_free_params or not first:
                continue
            last = max(entry.as_of for entry in first + again)
            since = (entry for entry in past if entry.as_of >= last)
            newest = again[-1].selected_again[recipe.hash] if again else None
            if before - last >= after or any(map(_taste_drifted, since)):
                recipes[f"{name}{AGAIN}"] = recipe
            elif newest is not None:
                recipes[f"{name}{AGAIN}"] = newest
        return recipes

    def comparable(self, before: datetime, key: ComparisonKey) -> tuple[DecisionEntry, ...]:
        """Return all decisions before an as-of with comparable figures, oldest first.

        Parameters
        ----------
        key
            Comparison key of the figures.
        """
        decisions = self._by_as_of(DecisionEntry, before)
        return tuple(entry for entry in decisions if entry.comparison_key == key)

    # ------------------------------------------------------------ other types

    def anchors(self, before: datetime, key: ComparisonKey) -> tuple[AnchorEntry, ...]:
        """Return the anchors that a user set before an as-of, oldest first.

        Parameters
        ----------
        key
            Comparison key of the anchors.
        """
        anchors = self._by_as_of(AnchorEntry, before)
        return tuple(entry for entry in anchors if entry.comparison_key == key)

    def last_calibration(self, until: datetime) -> CalibrationEntry | None:
        """Return the newest calibration up to an as-of."""
        calibrations = self._by_as_of(CalibrationEntry, until + JUST_AFTER)
        return max(calibrations, key=attrgetter("as_of"), default=None)

    def seed_sds(self, as_of: datetime, task: Task | None, k: int) -> dict[str, float]:
        """Return the seed SD of each family that was calibrated in the 90 days up to an as-of.

        Parameters
        ----------
        task, k
            Only calibrations of this task and list length count.

        Returns
        -------
        Family -> seed SD of its newest calibration, relative to the mean.
        """
        return {
            entry.family: entry.seed_sd
            for entry in self._by_as_of(CalibrationEntry, as_of + JUST_AFTER)
            if entry.as_of >= as_of - _SEED_SD_LASTS and (entry.task, entry.k) == (task, k)
        }

    def with_candidates(
        self,
        recipes: Mapping[str, Recipe],
        before: datetime,
        champion: Champion | None,
        again: Mapping[str, Recipe],
    ) -> dict[str, Recipe]:
        """Add the newest tuned recipe before an as-of, and recipes that were selected again.

        Parameters
        ----------
        recipes
            Recipes of the run by name; a candidate that is among them is not added.
        champion
            Neither is the champion's recipe.
        again
            Result of `selected_again`.

        Returns
        -------
        The recipes; the tuned one is called `CANDIDATE`. A name that is taken gets the hash.
        """
        tuned = self._by_as_of(CandidateEntry, before)
        newest: dict[str, Recipe] = {CANDIDATE: tuned[-1].recipe} if tuned else {}
        hashes = {recipe.hash for recipe in recipes.values()}
        if champion is not None:
            hashes.add(champion.recipe.hash)
        result = dict(recipes)
        for name, recipe in (newest | dict(again)).items():
            if recipe.hash not in hashes:
                hashes.add(recipe.hash)
                result[name if name not in recipes else f"{name}@{recipe.hash[:6]}"] = recipe
        return result

    def _by_as_of(self, kind: type[_E], before: datetime | None = None) -> list[_E]:
        """Return the entries of a type by as-of; equal ones stay in the order of their lines."""
        entries = [entry for entry in self.entries if isinstance(entry, kind)]
        if before is not None:
            entries = [entry for entry in entries if entry.as_of < before]
        return sorted(entries, key=attrgetter("as_of"))


def most_users(entry: DecisionEntry) -> int:
    """Return the number of users of the holdout length that has the most."""
    return max((users for _, users in entry.judged), default=0)


def _taste_drifted(entry: DecisionEntry) -> bool:
    return entry.drift is not None and any(x.startswith("taste.") for x in entry.drift.since)


def _always_enough(entries: Sequence[DecisionEntry], enough: int) -> tuple[int, ...]:
    """Return the holdout lengths that had enough users in all of these runs, at least four."""
    if len(entries) < _LEAST_RUNS:
        return ()
    able = [
        {
            days
            for days, users in entry.judged
            if users >= enough and not (entry.decision.waiting and days <= entry.holdout_days)
        }
        for entry in entries
    ]
    return tuple(sorted(set.intersection(*able)))


def references(
    accepted: Sequence[Champion], as_of: datetime, precedes: Callable[[Champion], bool]
) -> dict[str, Champion]:
    """Select up to two accepted runs whose scorers tonight's fit is compared with.

    Parameters
    ----------
    accepted
        Accepted runs, oldest first.
    as_of
        As-of of tonight's run.
    precedes
        Returns True if the training window of a run ends before tonight's holdout starts. Only
        such runs can be selected. If the holdout has become longer, the newest runs do not precede.

    Returns
    -------
    ``last``: the newest of these runs. ``month``: of these runs 21 to 45 days before `as_of`, the
    one nearest to 30 days. Either may be absent.
    """

    def age(champion: Champion) -> float:
        return (as_of - champion.as_of) / timedelta(days=1)

    # `precedes` reads files: it is called for as few runs as possible.
    last = next((champion for champion in reversed(accepted) if precedes(champion)), None)
    near = [champion for champion in accepted if 21 <= age(champion) <= 45 and precedes(champion)]
    month = min(near, key=lambda champion: abs(age(champion) - 30), default=None)
    return {name: run for name, run in (("last", last), ("month", month)) if run is not None}
