"""JSON files of the decision, the release and feedback passes; see `artifacts`.

Guarantees: every file has a type; a file with an unknown or missing field is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.base import Frozen, Instant
from pipeline.evaluation.gate.decision import Decision
from pipeline.evaluation.lift import Lift
from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.rates import Attribution
from pipeline.monitoring.verdicts import Drift
from pipeline.serving.churn import FIRST, ChurnShares
from pipeline.serving.foldin import Seen
from pipeline.stores.json_files import Artifact, RootArtifact


class DecisionFile(RootArtifact[Decision], step="gate", file="decision"):
    """The decision; the gate's in ``gate``, one that a user changed in ``accept``."""


class RoleMetrics(Frozen):
    """A metric of the best candidate, the champion's recipe and the best baseline."""

    candidate: float | None
    champion: float | None
    baseline: float | None


class MetricsFile(RootArtifact[Mapping[str, RoleMetrics]], step="gate", file="metrics"):
    """Metrics by name, for `nightly --json`."""


class OverrideFile(Artifact, step="accept", file="override"):
    """Name and reason of the operator who changed a decision."""

    by: str
    reason: str


# ---------------------------------------------------------------- nightly: cold_check to publish


class ColdCheckFile(Artifact, step="cold_check", file="cold"):
    """Result of the cold check.

    Attributes
    ----------
    canaries
        Number of users whose lists a new process must reproduce.
    idle, overlap
        Number of users without new events, and the share of their first entries that stayed.
    least
        Least share by earlier refreshes; None if it was not compared.
    fault
        Reason why the run publishes nothing, or None.
    """

    canaries: int
    idle: int
    overlap: float | None
    least: float | None
    fault: str | None


class SeedNoise(Frozen):
    """Share of the first entries that a seed changes; a reason for its absence, or a remark."""

    rate: float | None
    reason: str | None


class ChurnFile(Artifact, step="cold_check", file="churn", volatile=True):
    """Changes that a promotion makes for users without new events, by list length."""

    # Volatile: seed noise is measured or not, depending on the seconds that the refit took.

    publication_id: str
    users: int
    at: Mapping[int, ChurnShares]
    seed_noise: SeedNoise

    @property
    def first(self) -> ChurnShares:
        """Shares among the first `FIRST` entries."""
        return self.at[FIRST]


class ParityFile(Artifact, step="cold_check", file="parity"):
    """Overlap of fold-in and refit for users with new events; a reason as in `SeedNoise`."""

    users: int
    overlap: float | None
    k: int
    reason: str | None


class MlflowFile(Artifact, step="register", file="mlflow"):
    """MLflow run id and model version; in ``register``, or in ``accept/register``."""

    run: str
    version: int | None


class VersionFiguresFile(Artifact, file="version_figures"):
    """Lifts of the recipe that is live after the run, beside `MlflowFile`.

    Attributes
    ----------
    recipe
        The live recipe; None if no evaluated recipe is live.
    over_baseline, over_before
        Its scorer over the best baseline, and over the stored scorer of the version before.
    links
        Lifts from version 1 up to this run, each over the version before; empty if one is missing.
    absent
        Name of a figure in MLflow -> reason for its absence.
    """

    recipe: str | None = None
    over_baseline: Lift | None = None
    over_before: Lift | None = None
    links: tuple[Lift, ...] = ()
    absent: Mapping[str, str] = {}


class PinFile(Artifact, step="publish-pin", file="pin"):
    """Catalogue version that the lists obey and their `live_from`, the same for all attempts."""

    catalogue_version: int | None
    live_from: Instant


class PublicationFile(Artifact, step="publish", file="publication"):
    """Result of publishing: the publication, or the reason why none was made.

    Attributes
    ----------
    went_live
        True if the lists of this run became the live ones.
    """

    went_live: bool
    reason: str | None
    publication_id: str | None
    generation: int | None


# ---------------------------------------------------------------- feedback


class AttributionFile(RootArtifact[Attribution | None], step="attribution", file="attribution"):
    """Attribution of the span since the previous run; None without one."""


class DriftFile(RootArtifact[Drift], step="drift", file="drift"):
    """Drift in the days before the run."""


class PolicyFile(RootArtifact[RetrainDecision], step="policy", file="policy"):
    """The policy's decision at the as-of of the run."""


class PatchFile(RootArtifact[Seen], file="patch"):
    """Data that a patch of this run's lists has read; in ``foldin/<patch>``."""
