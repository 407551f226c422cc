"""Pages for tests: a night with something in each section, and one with nothing to show."""

import math
from datetime import UTC, datetime, timedelta

from pipeline.base import Interval
from pipeline.data.clean.treat import CleanReport, ColumnReport
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.evaluation.gate import Decision
from pipeline.evaluation.gate.decision import LiftWithoutAnswers, RuleResult
from pipeline.evaluation.gate.e_process_status import EProcessStatus
from pipeline.evaluation.prequential import LiveFigures, PrequentialFigures
from pipeline.monitoring.policy import RetrainAction as Action
from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.rates import Attribution, AttributionRow, Claims, ShownEffect
from pipeline.monitoring.verdicts import Drift, DriftStatus, Signal
from pipeline.report.night import LiftRow, NightPage, PastRun, SliceRow
from pipeline.serving.churn import FIRST, ChurnShares
from pipeline.workspace.artifacts import (
    AnsweredTargets,
    CleanFile,
    CostFile,
    RecipeEvaluation,
    SplitFile,
    TablesFile,
)
from pipeline.workspace.ledger import CalibrationEntry
from pipeline.workspace.release_artifacts import ChurnFile, ParityFile, SeedNoise
from tests.records import KNOWN

AS_OF = datetime(2017, 12, 1, 9, tzinfo=UTC)
BEFORE = AS_OF - timedelta(days=7)
EARLIER = BEFORE - timedelta(days=7)


def evaluation(mean=None, lo=None, hi=None, **others):
    """Return the evaluation of a recipe: NDCG@20 and other metrics at 20."""
    named = {"ndcg_at_20": mean, "ndcg_at_20_lo": lo, "ndcg_at_20_hi": hi}
    named |= {f"{name}_at_20": value for name, value in others.items()}
    known = {name: value for name, value in named.items() if value is not None}
    return RecipeEvaluation(metrics=known, coverage=others.get("coverage"), fits=1)


def status(recipe, points, *, lift=0.0, se=0.0, blocks=0, effect=None, more=None, waiting=None):
    """Return the state of a candidate, with a threshold of 500; its hash is its name."""
    log, half = math.log(points) if points else -900.0, 1.96 * se
    return EProcessStatus(
        recipe=recipe,
        recipe_hash=recipe,
        champion_hash="champion",
        opened=EARLIER,
        weight=0.2,
        threshold=500.0,
        use="waiting" if waiting else "recorded",
        blocks=blocks,
        log_e=log,
        lift=lift if blocks else None,
        se=se if blocks else None,
        lift_lo=lift - half if blocks else None,
        lift_hi=lift + half if blocks else None,
        smallest_effect=effect,
        blocks_for_two_percent=more,
        waiting=waiting,
    )


def cost(seconds, cpu, peak, parameters, rate, device="cpu"):
    """Return the cost of a training."""
    return CostFile(
        fit_seconds=seconds,
        fit_cpu_seconds=cpu,
        peak_mb=peak,
        parameters=parameters,
        examples_per_second=rate,
        estimated_mb=1.0,
        trained_on=device,
    )


def churn(overlap, users, lost=(), *, noise=None, reason=None):
    """Return the changes of a promotion among the first entries."""
    return ChurnFile(
        publication_id="p",
        users=users,
        at={FIRST: ChurnShares(users, 0, 0, overlap, dict(lost))},
        seed_noise=SeedNoise(rate=noise, reason=reason),
    )


def live(version, group, users, events, hit_rate=None, ndcg=None, lo=None, hi=None, base=None):
    """Return the live quality of one version for one group."""
    return LiveFigures(
        version, group, users, users, events, hit_rate, ndcg, lo, hi, None, None, base
    )


def scored(*args, **named):
    """Return `live` as a file has it, with more of its figures."""
    rest = list(PrequentialFigures.__dataclass_fields__)
    row = vars(live(*args, **named))
    return PrequentialFigures(**{name: row.get(name) for name in rest})


def clean_report(rows, *columns):
    """Return the effect of cleaning a table: (column, missing, filled, below, above, removed)."""
    reports = [
        ColumnReport(name, "drop", missing, filled, None, "keep", None, None, below, above, out)
        for name, missing, filled, below, above, out in columns
    ]
    return CleanReport(rows, rows, 0, tuple(reports))


def calibration(as_of, sentence):
    """Return a ledger entry of a calibration."""
    numbers = dict.fromkeys(
        ("seed_sd", "rate", "rate_upper", "tossed_upper", "v_hat", "planted", "power"), 0.1
    )
    counts = dict.fromkeys(("k", "df", "replicates", "switched", "lineages"), 1)
    return CalibrationEntry(
        key=f"calibration:{as_of}",
        as_of=as_of,
        calibration="c",
        recipe="als",
        family="als",
        recipe_hash="hash",
        task="discovery",
        metric="ndcg",
        users=(),
        cutoffs=(),
        sentence=sentence,
        **numbers,
        **counts,
    )


HOLDOUT = Interval(BEFORE, AS_OF)
CLEAN = clean_report(10)
BARE = NightPage(
    run_id="run",
    as_of=AS_OF,
    commit="abc1234",
    settings="0123456789abcdef",
    decision=Decision("keep", None, None, (), (), "keep: nothing is there", HOLDOUT),
    k=20,
    split=SplitFile(
        train=Interval(EARLIER, BEFORE),
        holdout=HOLDOUT,
        holdout_days=7,
        task="discovery",
        repeat_share=None,
        target_kinds=("purchase",),
        judged=(),
        flags=(),
    ),
    users=1212,
    evaluations={},
    champion=None,
    baselines=(),
    failures={},
    selected={},
    costs={},
    challenger=None,
    against=None,
    needed_lift=0.01,
    margin=0.02,
    lifts=(),
    slices=(),
    checks=(),
    versions={},
    known=KNOWN,
    tables=TablesFile(events=0, items=0, users=0),
    cleaning=CleanFile(train=CLEAN, full=CLEAN, items=CLEAN, users=CLEAN),
    quarantined=None,
    quarantine_reasons={},
    advice=(),
    calibration=None,
    e_process_paths={},
    past=(),
    live=(),
    churn=(),
    parity=(),
    attribution=None,
    drift=None,
    policy=None,
)
RULES = (
    RuleResult("switch.lift", "als", 0.4, 0.01, "pass", "als is better"),
    RuleResult("switch.slices.lapsed", "als", -0.06, None, "underpowered", "32 people"),
    RuleResult("switch.lift", "other", -0.4, 0.01, "fail", "other loses"),
    RuleResult("check.schema", "", None, None, "pass", "as last night, too"),
    RuleResult("check.volume", "", 0.4, 0.5, "fail", "too few events"),
)
ATTRIBUTION = Attribution(
    span=HOLDOUT,
    window_days=7,
    users=950,
    events=3_100,
    joined=1_900,
    late=0,
    unshown=0,
    claims=Claims(1, 2, 3),
    shown_effects=(
        ShownEffect("response_rate", 900, 5_800, 0.041, 0.029, 0.012, 0.004, 0.0041, 0.0199),
        ShownEffect("visitor_hit_rate", 900, 5_800, 0.011, 0.0105, 0.0005, 0.002, -0.0034, 0.0044),
    ),
    rows=(
        AttributionRow(
            "all", "all", 950, 61_000,
            response_rate=0.031, response_rate_lo=0.028, response_rate_hi=0.034,
            ctr=0.02, ctr_lo=0.018, ctr_hi=0.022,
            visitor_hit_rate=0.011, visitor_hit_rate_lo=0.01, visitor_hit_rate_hi=0.012,
            revenue=1234.5, revenue_per_exposure=0.02, revenue_per_exposure_lo=0.015,
            revenue_per_exposure_hi=0.03, return_rate=0.04, return_rate_lo=0.0,
            return_rate_hi=0.09,
        ),
        AttributionRow("segment", "new", 4),
        AttributionRow("position", "1", 950, 3_000, response_rate=0.05, response_rate_lo=0.04),
    ),
)  # fmt: skip
DRIFT = Drift(
    AS_OF,
    DriftStatus.DRIFT,
    "people want other things",
    (
        Signal("data.volume", 0.4, 4.0, DriftStatus.STABLE, "as many as ever"),
        Signal("taste.items", 9.25, 4.0, DriftStatus.DRIFT, "people want other things"),
        Signal("quality.ndcg", None, 4.0, DriftStatus.TOO_SHORT, "2 nights"),
    ),
)
FULL = BARE.model_copy(
    update={
        "run_id": "20171201T090000Z-1a2b3c4d",
        "decision": Decision(
            "switch", "als", "als", RULES, (), "switch: als replaces popularity: +40 %", HOLDOUT,
            e_processes=(
                status("als", 512.5, lift=0.04, se=0.02 / 1.96, blocks=3, effect=0.05, more=0),
                status("mad", 0.01, lift=-0.4, se=0.1 / 1.96, blocks=1, effect=0.05, more=31,
                       waiting="waiting, day 3 of 7"),
                status("new", 1.0),
            ),
            without_answers=(
                LiftWithoutAnswers("als", "popularity", 1_212, 0.4, 0.35, 0.45, 1_150, 0.62, 0.55,
                                   0.69),
                LiftWithoutAnswers("popularity", "scorer of 2017-11-24", 1_212, 0.01, -0.01,
                                   0.03, 150, None, None, None),
            ),
        ),
        "evaluations": {
            "als": evaluation(0.1212, 0.115, 0.1274, coverage=0.31, gini=0.6, novelty=9.25,
                              diversity=0.8, serendipity=0.02),
            "popularity": evaluation(0.0866, 0.081, 0.0922, coverage=0.012, gini=0.9, novelty=4.5),
        },
        "champion": "popularity",
        "baselines": ("popularity",),
        "failures": {"broken": "no GPU is there"},
        "selected": {"als": "alpha 3 <b>"},
        "costs": {
            "popularity": cost(0.01, 0.01, 0.4, 7_000, 5_000_000.0),
            "als": cost(12.345, 23.4, 1_135.04, 2_000_000, 52_123.4, "cuda"),
        },
        "challenger": "als",
        "against": "popularity",
        "lifts": (LiftRow("als", 0.4, 0.35, 0.45, True),),
        "slices": (
            SliceRow("cold", 301, 0.09, 0.085, 0.059, -0.02, 0.14),
            SliceRow("new_items", 12, 0.0, 0.0, None, None, None, "too few users"),
        ),
        "checks": (
            DataCheck("schema", Status.PASSED, None, None, "as last night"),
            DataCheck("volume", Status.NO_HISTORY, None, None, "5 days; 7 are needed"),
        ),
        "versions": {"batches": None, "events": 14, "publications": 3},
        "tables": TablesFile(events=1_352_210, items=0, users=0),
        "cleaning": CleanFile(
            train=CLEAN, full=CLEAN, users=CLEAN,
            items=clean_report(92_331, ("price", 512, 500, 80, 3, 1)),
        ),
        "quarantined": 451,
        "quarantine_reasons": {"user_id_missing": 39, "kind_unknown": 412},
        "e_process_paths": {
            "als": ((BEFORE, 2.0), (AS_OF, 6.24)), "mad": ((AS_OF, -4.6),), "new": ((AS_OF, 0.0),),
        },
        "past": (
            PastRun(EARLIER, "first", "popularity", 28, 0.3, 0.2, 0.4, 0.0, 0.0, 0.0),
            PastRun(BEFORE, "refresh", "popularity", 7),
            PastRun(AS_OF, "switch", "als", 7, 0.1212, 0.115, 0.1274, 0.4, 0.35, 0.45),
        ),
        "live": (
            (BEFORE, live("1", "all", 900, 3_000, 0.2, 0.025, 0.02, 0.03, 0.024)),
            (AS_OF, live("2", "all", 950, 3_100, 0.21, 0.026, 0.021, 0.031, 0.025)),
            (AS_OF, live("2", "cold", 3, 4)),
        ),
        "churn": (
            (BEFORE, churn(None, 0, reason="no user before")),
            (AS_OF, churn(0.93, 655, {"stock": 0.01, "data": 0.06}, noise=0.019)),
        ),
        "parity": ((AS_OF, ParityFile(users=12, overlap=0.4, k=10, reason=None), None),),
        "attribution": ATTRIBUTION,
        "answers": AnsweredTargets(targets=3_100, answered=640),
        "drift": DRIFT,
        "policy": RetrainDecision(
            Action.RETRAIN, "retrain wanted: people want other things", 1, 1, 1, None
        ),
    }
)  # fmt: skip
