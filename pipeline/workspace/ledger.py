"""Entries of the ledger: one frozen model per type, discriminated by `type`.

`stores/ledger.py` keeps the lines, their keys and the chain of checksums, without types;
`history.LedgerHistory` selects entries for the steps.

Guarantees:

* A line is the canonical form of a model, so equal entries give equal lines.
* A line of an unknown type or with an unknown key is a `StorageError` that names its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.base import Frozen, Instant, Interval
from pipeline.data.features import FeaturesConfig
from pipeline.data.targets import Task
from pipeline.errors import StorageError
from pipeline.evaluation.gate.anchors import Anchor
from pipeline.evaluation.gate.decision import Decision, Kind
from pipeline.evaluation.prequential import LiveFigures
from pipeline.models.families import AnyRecipe
from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.rates import Claims
from pipeline.monitoring.verdicts import DriftStatus
from pipeline.stores.ledger import Ledger


class LedgerEntry(Frozen):
    """Fields of all entries.

    Attributes
    ----------
    key
        Unique: a second entry with this key is not appended.
    previous, sha256
        Checksums of the line before and of this one; empty until the entry is appended.
    """

    key: str
    as_of: Instant
    previous: str = ""
    sha256: str = ""

    def plain(self) -> Any:
        """Return the entry as plain JSON values, the shape of ``history --json``."""
        return self.model_dump(mode="json", by_alias=True)


class ComparisonKey(Frozen):
    """Properties that two runs share if their figures can be compared."""

    task: Task
    target_kinds: tuple[str, ...]
    k: int
    data: str
    """Digest of the event weights and of cleaning (`window_digest`)."""


class SelectedWeights(Frozen):
    """Event weights of a run: as configured, and as selected for that config."""

    # Later runs take over the chosen weights only while the configured ones are the same.
    configured: FeaturesConfig
    chosen: FeaturesConfig


@dataclass(frozen=True)
class AttributionSummary:
    """Attribution of a run's span over all users; None where the group is too small."""

    span: Interval
    events: int
    joined: int
    late: int
    claims: Claims
    users: int | None = None
    exposures: int | None = None
    response_rate: float | None = None
    response_rate_se: float | None = None
    ctr: float | None = None
    ctr_se: float | None = None
    visitor_hit_rate: float | None = None
    visitor_hit_rate_se: float | None = None
    revenue_per_exposure: float | None = None
    revenue_per_exposure_se: float | None = None
    return_rate: float | None = None
    return_rate_se: float | None = None


class DriftSummary(Frozen):
    """Drift of a run: its status, and the begin of the drift of each drifting signal."""

    status: DriftStatus
    sentence: str
    since: Mapping[str, Instant]


class StepOutput(LedgerEntry):
    """Output of a step of a run, by its checksum.

    Attributes
    ----------
    output_sha256
        Checksum of the committed step (`Ref.sha256`).
    """

    run_id: str
    output_sha256: str


class StepEntry(StepOutput):
    """A step whose output goes live with the run."""

    type: Literal["step"] = "step"
    step: str


class Decided(StepOutput):
    """A decision for a run.

    Attributes
    ----------
    snapshot_sha256
        Checksum of the run's snapshot: its config, recipes and pinned versions.
    """

    snapshot_sha256: str
    kind: Kind
    recipe: str | None
    sentence: str
    decision: Decision


class DecisionEntry(Decided):
    """Decision of the gate in a run that is not a replay.

    Attributes
    ----------
    judged
        Holdout length in days and its number of users, for each length that was possible.
    selected_recipes
        Recipes with the hyperparameters that were selected, by the hash of the configured recipe.
    selected_again
        The same for recipes that had been selected before: a candidate of later runs, or None if
        the search found no other settings.
    trigger
        The policy's decision that requested the run, or None.
    """

    type: Literal["decision"] = "decision"
    holdout_days: int
    judged: tuple[tuple[int, int], ...]
    # Later nights read the selection here, so that from night to night only the data change
    # (ADR 11).
    selected_recipes: Mapping[str, AnyRecipe]
    selected_again: Mapping[str, AnyRecipe | None] = {}
    weights: SelectedWeights
    comparison_key: ComparisonKey
    live: tuple[LiveFigures, ...]
    attribution: AttributionSummary | None
    drift: DriftSummary | None
    trigger: RetrainDecision | None


class Published(Frozen):
    """A publication and its run.

    Attributes
    ----------
    name
        The recipe's name in the config of its run.
    """

    name: str
    run_id: str
    as_of: Instant
    publication_id: str
    generation: int
    model_version: str


class Champion(Published):
    """A recipe that was published, and the run that published it."""

    recipe: AnyRecipe


class PublicationEntry(LedgerEntry, Champion):
    """A base publication that went live."""

    type: Literal["publication"] = "publication"
    live_from: Instant


class PatchEntry(LedgerEntry, Published):
    """A patch that went live behind a base publication."""

    type: Literal["patch"] = "patch"
    live_from: Instant
    base: str


class OverrideEntry(Decided):
    """A decision that a user changed."""

    type: Literal["override"] = "override"
    by: str
    reason: str


class AnchorEntry(LedgerEntry):
    """An anchor that a user set."""

    type: Literal["anchor"] = "anchor"
    comparison_key: ComparisonKey
    recipe: str
    anchor: Anchor
    by: str
    reason: str
    sentence: str


class TargetEntry(LedgerEntry):
    """A stronger kind of event that a user made the target; later runs keep it."""

    type: Literal["target"] = "target"
    run_id: str
    target_kinds: tuple[str, ...]
    by: str
    reason: str
    sentence: str


class CalibrationEntry(LedgerEntry):
    """Result of a calibration of the gate; measured fields as in `Calibration`.

    Attributes
    ----------
    calibration
        Name of its folder below ``calibrations/``.
    recipe, recipe_hash
        Name and hash of the champion's recipe.
    lineages, switched
        Number of replayed e-processes of an equal candidate, and of those that switched.
    cutoffs
        Starts of the holdouts, oldest first.
    """

    type: Literal["calibration"] = "calibration"
    calibration: str
    recipe: str
    family: str
    recipe_hash: str
    task: Task
    k: int
    metric: str
    seed_sd: float
    rate: float
    rate_upper: float
    tossed_upper: float
    v_hat: float
    df: int
    planted: float
    users: tuple[int, ...]
    replicates: int
    power: float
    switched: int
    lineages: int
    cutoffs: tuple[Instant, ...]
    sentence: str


class CandidateEntry(LedgerEntry):
    """A tuned recipe, which the next run evaluates.

    Attributes
    ----------
    start, value
        Mean NDCG on the study's windows: of the recipe that the search began with, and of this.
    """

    type: Literal["candidate"] = "candidate"
    name: str
    recipe: AnyRecipe
    study: str
    sentence: str
    start: float
    value: float


class RepairEntry(LedgerEntry):
    """A repair that a user answers for.

    Attributes
    ----------
    store
        ``ledger``, or the table of the lake whose lost checksums were accepted.
    accepted_generation
        The ledger is not compared with publications up to this one: it may lack `missing`.
    missing
        Entries of the ledger that could not be restored.
    """

    type: Literal["repair"] = "repair"
    store: str
    by: str
    reason: str
    sentence: str
    accepted_generation: int = 0
    missing: tuple[str, ...] = ()


Entry = Annotated[
    DecisionEntry
    | PublicationEntry
    | PatchEntry
    | OverrideEntry
    | AnchorEntry
    | TargetEntry
    | CalibrationEntry
    | CandidateEntry
    | RepairEntry
    | StepEntry,
    Field(discriminator="type"),
]
"""An entry of any type."""

# Built once per process: pydantic compiles a validator of all types for it.
_ADAPTER: TypeAdapter[Entry] = TypeAdapter(Entry)
_KEPT_BY_THE_STORE = {"key", "type", "previous", "sha256"}
E = TypeVar("E", bound=LedgerEntry)


def parse_entry(line: Mapping[str, object]) -> Entry:
    """Parse a line of the ledger; `ledger.invalid_entry` names its key and field."""
    try:
        return _ADAPTER.validate_python(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise StorageError(
            "ledger.invalid_entry",
            f"ledger entry {line.get('key')!r} is invalid: {field}: {first['msg']}; it was changed "
            "or written by another version of Nightjar; restore the ledger from a backup, or use "
            "that version",
        ) from error


def entries_of(ledger: Ledger) -> tuple[Entry, ...]:
    """Return all entries, oldest line first, after checking the chain of checksums."""
    return tuple(parse_entry(line) for line in ledger.entries())


def line_of(entry: LedgerEntry) -> dict[str, Any]:
    """Return the line of an entry without its checksums, which the store computes."""
    fields = entry.model_dump(mode="json", by_alias=True, exclude=_KEPT_BY_THE_STORE)
    return {**fields, "key": entry.key, "type": entry.type}  # type: ignore[attr-defined]


def append_entry(ledger: Ledger, entry: E) -> E:
    """Append an entry.

    Returns
    -------
    The entry with its checksums, or the earlier one that has the same key.
    """
    # The store writes these four itself: the checksums chain over them.
    fields = entry.model_dump(mode="json", by_alias=True, exclude=_KEPT_BY_THE_STORE)
    # The store returns the earlier line of the same key, which may differ from this entry.
    line = ledger.append(entry.key, entry.type, fields)  # type: ignore[attr-defined]
    return type(entry).model_validate(line)
