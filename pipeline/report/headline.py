"""Headline of a nightly run: its result, and whether a person has to do something.

Page, terminal and Airflow show the same headline. The sentence of the decision, with all figures of
the gate, is the detail below it.

Guarantees: equal files of a run give an equal headline; ``good`` only if nothing has to be done;
each lift has its 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Literal

from pipeline.base import Instant
from pipeline.data.validate.checks import DataCheck
from pipeline.evaluation.gate.accept import offers
from pipeline.evaluation.gate.decision import Decision, RuleResult
from pipeline.evaluation.gate.evidence import REFRESH_LAST, REFRESH_SLICES
from pipeline.evaluation.gate.rules import seed_sd_of
from pipeline.evaluation.lift import Lift as MeasuredLift
from pipeline.evaluation.lift import Verdict, over_stored, verdict
from pipeline.number_text import decimal
from pipeline.report.wording import (
    COMPARED,
    DELIVER,
    block_steps,
    lift_text,
    plain,
    sentence,
    stops,
)
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import EvaluationFile, SnapshotFile, ValidationFile
from pipeline.workspace.ledger import Champion
from pipeline.workspace.lifts import over_baseline, over_version_before
from pipeline.workspace.night import decision_of
from pipeline.workspace.release_artifacts import ColdCheckFile, PublicationFile
from pipeline.workspace.run_files import read_evaluated_recipes

Status = Literal["good", "look", "act"]
"""``good``: nothing to do. ``look``: worth a look, nothing is broken. ``act``: something to do."""

LIGHTS: Final = {"good": "✓ Good", "look": "! Worth a look", "act": "✗ Act"}
"""Light of each status: a sign and a word, because a colour alone is not readable for all."""
_NO_TODO: Final = "Nothing to do."
_SIGNS: Final[Mapping[Verdict, tuple[str, str]]] = {
    "better": ("✓", "w ok"),
    "about as good": ("○", "w other"),
    "unclear": ("○", "w other"),
    "worse": ("✗", "w bad"),
}
"""Sign of each verdict, and the CSS classes of its cell."""
_NUMBERS: Final = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip


@dataclass(frozen=True)
class Headline:
    """Result of a nightly run in two plain sentences.

    Attributes
    ----------
    news
        What happened, in one sentence.
    todo
        What to do, in one or two sentences.
    fact
        The result alone, for a place that shows its beginning: of new lists whether they are live,
        the recipe, its lift over the lists before, the decision and the lift over the baseline;
        else the reason why the live lists stay.
    """

    status: Status
    news: str
    todo: str = _NO_TODO
    fact: str = ""

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.news} {self.todo}"


@dataclass(frozen=True)
class Lift:
    """Lift over the recipe or scorer `over`, with its 95 % interval; .02 is +2 %.

    Attributes
    ----------
    margin
        As for `evaluation.lift.verdict`.
    users
        Number of users who were compared; None over several blocks of days.
    day
        Day of the stored scorer.
    """

    over: str
    lift: float
    lo: float
    hi: float
    margin: float
    users: int | None = None
    day: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Finding in a word or two."""
        return verdict(self.lo, self.hi, self.margin)

    @property
    def words(self) -> tuple[str, str]:
        """Finding with its sign, and the CSS classes of its cell."""
        sign, css = _SIGNS[self.verdict]
        return f"{sign} {self.verdict}", css

    @property
    def text(self) -> str:
        """``23.1 % better than x (11.0 to 35.2)``, ``about as good as x (0.8 %, −1.5 to +3.1)``."""
        compared = f"{COMPARED[self.verdict]} {self.over}"
        if self.lo > 0 or self.hi < 0:
            mean, low, high = (decimal(100 * abs(x)) for x in (self.lift, self.lo, self.hi))
            ends = (low, high) if self.lo > 0 else (high, low)
            return f"{mean} % {compared} ({' to '.join(ends)})"
        return f"{compared} ({lift_text(self.lift, self.lo, self.hi)})"


@dataclass(frozen=True)
class NightFacts:
    """Results of a run that its headline is made of.

    Attributes
    ----------
    data_since
        As-of of the live version before the run; None without one.
    live
        Sentence about that version.
    publishes
        Whether the run publishes what it promotes; a replay does not.
    failed_checks
        Checks of the data that stopped the run.
    decision
        None if the run did not decide.
    over_blocks
        Lift by which a switch was decided, over the recipe before.
    over_baseline, over_before
        Lift of tonight's scorer over the best baseline, and over the stored scorer of the version
        before.
    over_month
        The same over the scorer of a month ago.
    cold_fault
        Reason of the cold check to publish nothing.
    published
        Whether the lists went live; None before that.
    """

    run_id: str
    as_of: Instant
    data_since: Instant | None
    publishes: bool
    failed_checks: tuple[DataCheck, ...] = ()
    decision: Decision | None = None
    over_blocks: Lift | None = None
    over_baseline: Lift | None = None
    over_before: Lift | None = None
    over_month: Lift | None = None
    cold_fault: str | None = None
    published: bool | None = None
    live: str = ""


def night_headline(run: Run | None, reason: str = "") -> Headline:
    """Return the headline of a run.

    Parameters
    ----------
    run
        The run, or None if none was started.
    reason
        Reason why none was started, in one sentence.
    """
    return headline(night_facts(run)) if run else no_run(reason)


def no_run(reason: str) -> Headline:
    """Return the headline of a night that started no run, for the reason."""
    return Headline("good", f"No new model was needed, the live lists stay: {reason}.", fact=reason)


def headline(facts: NightFacts) -> Headline:
    """Return the headline of a run from its facts."""
    decision = facts.decision
    if facts.failed_checks:
        causes = _worst(facts.failed_checks)
        return Headline(
            "act",
            f"The data of this night are not usable, the live lists stay: {causes}.",
            f"{sentence(DELIVER)}.",
            causes,
        )
    if decision is None:
        return Headline("look", "The run has not decided yet.", "Start it again to continue it.")
    if decision.kind == "block":
        return _blocked(decision, facts.run_id)
    if facts.cold_fault is not None:
        return Headline(
            "act",
            f"The new lists were not published, the live lists stay: {facts.cold_fault}.",
            f"Check the data of the last days, and {DELIVER}.",
            facts.cold_fault,
        )
    if decision.kind == "keep":
        return _kept(decision)
    return _promoted(facts, decision)


def night_facts(run: Run) -> NightFacts:
    """Read the facts of a run; its snapshot is committed."""
    snapshot = run.read(SnapshotFile)
    validation = run.find(ValidationFile)
    facts = NightFacts(
        run_id=run.run_id,
        as_of=snapshot.as_of,
        data_since=None if snapshot.champion is None else snapshot.champion.as_of,
        publishes=snapshot.publish and not snapshot.replay,
        failed_checks=() if validation is None else validation.failed,
        live=_live(snapshot.champion),
    )
    if run.committed("gate") is None:
        return facts
    decision, cold, published = decision_of(run), run.find(ColdCheckFile), run.find(PublicationFile)
    baseline = over_baseline(run, snapshot, decision.recipe)
    best = "" if isinstance(baseline, str) else baseline.against
    before = over_version_before(run, snapshot, decision.recipe)
    margin = snapshot.config.gate.refresh_margin
    day = None if snapshot.champion is None else f"{snapshot.champion.as_of:%Y-%m-%d}"
    return replace(
        facts,
        decision=decision,
        over_blocks=_over_blocks(decision, margin),
        over_baseline=_shown(f"the best baseline {best}", baseline, margin),
        over_before=_shown("the version before", before, margin, day),
        over_month=_over_month(run, snapshot, decision),
        cold_fault=None if cold is None else cold.fault,
        published=None if published is None else published.went_live,
    )


def _live(champion: Champion | None) -> str:
    """Name the version that stays live, and the night since which it is."""
    if champion is None:
        return "No lists are live yet."
    return (
        f"Version {champion.model_version} (recipe {champion.name}) stays live, since the night of "
        f"{champion.as_of:%Y-%m-%d %H:%M} UTC."
    )


def _promoted(facts: NightFacts, decision: Decision) -> Headline:
    lists = "first lists" if decision.kind == "first" else "new lists"
    if facts.published:
        opening = f"{lists.capitalize()} are live"
    elif facts.published is None and facts.publishes:
        opening = f"{lists.capitalize()} were accepted for publication"
    else:
        opening = f"{lists.capitalize()} passed every check, and were not published"
    lifts = [x for x in (facts.over_blocks, facts.over_baseline, facts.over_before) if x]
    quality = ", ".join(lift.text for lift in lifts)
    parts = "; ".join(part for part in (_change(facts, decision), quality) if part)
    news = f"{opening}: {parts}."
    reasons = _doubts(decision, lifts)
    fact = _short_note(facts, decision)
    if reasons:
        return Headline("look", news, f"Worth a look: {_listed(reasons)}.", fact)
    return Headline("good", news, fact=fact)


def _short_note(facts: NightFacts, decision: Decision) -> str:
    """Return the result in the order in which a reader of its first 40 characters needs it."""
    live = facts.published or (facts.published is None and facts.publishes)
    before = facts.over_before and replace(facts.over_before, over="before")
    lifts = [lift.text for lift in (before, facts.over_blocks) if lift]
    parts = [", ".join(filter(None, [decision.recipe, *lifts])), f"decision {decision.kind}"]
    parts += [facts.over_baseline.text] if facts.over_baseline else []
    return f"{'Live' if live else 'Not published'}: {'; '.join(parts)}"


def _change(facts: NightFacts, decision: Decision) -> str:
    """Name the recipe, and the reason why the lists are new."""
    if decision.kind == "switch":
        return f"the recipe {decision.recipe} replaces the one before"
    if decision.kind == "first" or facts.data_since is None:
        return f"the recipe {decision.recipe}"
    return f"the same recipe on {_more_data(facts.as_of - facts.data_since)}"


def _doubts(decision: Decision, lifts: Sequence[Lift]) -> list[str]:
    """Return the reasons to look at lists that went live."""
    rules = decision.rules
    doubts = [rule.sentence for rule in rules if rule.name == "first.users"]
    absent = [rule.subject for rule in rules if rule.name == "absent"]
    if absent:
        doubts.append(f"{_listed(absent)} could not be trained")
    # The margins of the gate are wider than these intervals, so that noise alone does not block.
    doubts += [f"the lists are worse than {lift.over}" for lift in lifts if lift.verdict == "worse"]
    if decision.inconclusive is not None:
        doubts.append(f"{decision.inconclusive} may be better and can be accepted")
    return doubts


def _kept(decision: Decision) -> Headline:
    text = decision.reasons[0] if decision.reasons else decision.sentence
    todo = "Nothing to do yet: the next night compares again."
    if decision.inconclusive is not None:
        todo = f"Worth a look: {decision.inconclusive} may be better and can be accepted."
    return Headline("look", f"The live lists stay: {text}.", todo, text)


def _blocked(decision: Decision, run_id: str) -> Headline:
    causes = list(dict.fromkeys(_cause(x) for x in decision.rules if stops("block", x)))
    named = _listed(causes or list(decision.reasons) or ["the evidence is not complete"])
    todo = " ".join(block_steps(decision.rules))
    if offers(decision):
        todo += f" If the data are right: `nightjar gate accept {run_id} --by NAME --reason TEXT`."
    return Headline("act", f"Nothing was published, the live lists stay: {named}.", todo, named)


def _cause(rule: RuleResult) -> str:
    """Describe a failed rule by its figure; one without a figure by its sentence."""
    name, figure = rule.name, rule.figure
    if figure is None or rule.outcome != "fail":
        return rule.sentence
    amount = f"{decimal(100 * abs(figure))} %"
    if name.startswith(REFRESH_SLICES) and figure < 0:
        group = plain(name.removeprefix(REFRESH_SLICES))
        return f"the new model is {amount} worse for the group {group}"
    texts = {
        REFRESH_LAST: f"the new model is {amount} worse than the last one on the same users",
        "refresh.month": f"the new model is {amount} worse than that of a month ago",
        "refresh.level": f"the quality is {amount} below its usual level",
        "refresh.floor": f"the new model is {amount} worse than the best baseline",
        "refresh.anchor": f"the ratio to the best baseline has fallen by {amount}",
    }
    return texts.get(name, rule.sentence) if figure < 0 else rule.sentence


def _worst(checks: Sequence[DataCheck]) -> str:
    """Return the sentence of the check that fails most, and the number of the others."""
    first, others = max(checks, key=_excess), len(checks) - 1
    more = f"; {others} more check{'' if others == 1 else 's'} failed" if others else ""
    return first.sentence + more


def _excess(check: DataCheck) -> float:
    """Return the distance of a figure from its bound as a share of the larger one."""
    figure, bound = check.figure, check.bound
    if figure is None or bound is None:
        return 1.0
    return abs(figure - bound) / (max(abs(figure), abs(bound)) or 1.0)


def _over_blocks(decision: Decision, margin: float) -> Lift | None:
    """Return the lift by which a switch was decided, over all blocks of days of its e-process."""
    statuses = (row for row in decision.e_processes if row.recipe == decision.recipe)
    row = next(statuses, None)
    if decision.kind != "switch" or row is None or row.lift is None or row.lift_lo is None:
        return None
    over = f"the recipe before on all {row.blocks} blocks of days"
    return Lift(over, row.lift, row.lift_lo, row.lift_hi or math.inf, margin)


def _over_month(run: Run, snapshot: SnapshotFile, decision: Decision) -> Lift | None:
    """Compare tonight's fit of the same recipe with that of a month ago, as the gate does."""
    stored = run.read(EvaluationFile).references.month
    # After a switch the stored scorer is that of another recipe.
    if decision.kind == "switch" or stored is None:
        return None
    new, old = (run.frame("evaluate", f"reference-month-{side}") for side in ("tonight", "stored"))
    [recipe] = read_evaluated_recipes(run, snapshot, [str(snapshot.champion_name)])
    gate = snapshot.config.gate
    noise = seed_sd_of(recipe, gate)
    lift = over_stored(new, old, "month", seed_sds=(noise, noise))
    return _shown("the model of a month ago", lift, gate.refresh_margin, stored.day)


def _shown(
    over: str, lift: MeasuredLift | str, margin: float, day: str | None = None
) -> Lift | None:
    return None if isinstance(lift, str) else Lift(over, *lift.interval, margin, lift.users, day)


def _more_data(span: timedelta) -> str:
    days = round(span / timedelta(days=1))
    if days < 1:
        return "newer data"
    count, unit = (days // 7, "week") if days % 7 == 0 else (days, "day")
    number = _NUMBERS[count] if count < len(_NUMBERS) else f"{count:,}"
    return f"{number} more {unit if count == 1 else unit + 's'} of data"


def _listed(texts: Sequence[str]) -> str:
    """Join texts; more than three are counted."""
    shown = "; ".join(texts[:3])
    return f"{shown}; and {len(texts) - 3} more" if len(texts) > 3 else shown
