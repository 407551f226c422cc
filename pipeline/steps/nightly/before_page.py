"""Page that compares a new version with the version before, from the evaluations of its night.

Guarantees: no scorer is evaluated for it, so it is made in seconds; users and ground truth are
those of the lift over the version before.
"""

from __future__ import annotations

from typing import Final

from pipeline.report.pair import PairedComparison
from pipeline.report.versions import versions_page
from pipeline.steps.reporting.paired_rows import (
    HOLDOUT,
    Side,
    evaluated_on,
    paired_rows,
    recipe_comparison,
    seed_sd,
)
from pipeline.steps.reporting.version_facts import build_versions_page
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.lifts import pair_with_version_before
from pipeline.workspace.night import Night, decision_of
from pipeline.workspace.versions import Version

BEFORE_PAGE: Final = "version-before.html"


def version_before_page(night: Night, number: int) -> bytes | None:
    """Return the page of a version beside the version before, as HTML.

    Parameters
    ----------
    night
        Run of the version.
    number
        Its number.

    Returns
    -------
    bytes or None
        None for the first version, or if the files of the version before are gone.
    """
    champion = night.champion
    if champion is None:
        return None
    run = night.ws.runs.open(champion.run_id)
    if run.committed(REFIT) is None:
        return None
    decision = decision_of(night.run)
    left = _version(Night.read(night.ws, run), int(champion.model_version), champion.name)
    right = _version(night, number, str(decision.recipe))
    comparisons = (_on_holdout(left, right), *recipe_comparison(left, right))
    lists = f"`nightjar compare {left.number} {number}` shows lists of the same users."
    return versions_page(build_versions_page(left, right, comparisons, lists)).encode()


def _version(night: Night, number: int, name: str) -> Version:
    publication = night.history.by_version.get(number)
    return Version(number, night, name, decision_of(night.run), publication)


def _on_holdout(left: Version, right: Version) -> PairedComparison:
    title = f"On the holdout of version {right.number}"
    frames = pair_with_version_before(right.night.run, right.night.snapshot, right.name)
    if isinstance(frames, str):
        return PairedComparison(HOLDOUT, title, f"No paired comparison: {frames}.")
    tonight, stored = frames
    sides = Side(stored, seed_sd(left, left.name)), Side(tonight, seed_sd(right, right.name))
    about = (
        f"Both scorers of the evaluations, on the users of {evaluated_on(right)} that the window "
        f"of version {left.number} knows."
    )
    return PairedComparison(HOLDOUT, title, about, paired_rows(sides, right))
