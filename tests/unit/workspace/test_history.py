from dataclasses import replace

from pipeline.data.features import FeaturesConfig
from pipeline.data.split import PinnedTask
from pipeline.models.families import recipe_from
from pipeline.workspace.history import references
from pipeline.workspace.ledger import OverrideEntry, SelectedWeights, TargetEntry, parse_entry
from tests.entries import (
    ALS,
    KEY,
    NIGHT,
    calibration,
    days_before,
    decision,
    history,
    publication,
)
from tests.raising import raises


def accepted(*ages):
    """Champions that were published so many days ago, oldest first."""
    lines = [publication(age, generation) for generation, age in enumerate(ages, start=1)]
    return history(*lines).reference_runs(NIGHT)


def chosen(ages, fits=lambda night: True):
    return {
        label: night.run_id for label, night in references(accepted(*ages), NIGHT, fits).items()
    }


def test_last_is_the_newest_and_month_the_nearest_to_thirty_days():
    assert chosen([60, 45, 33, 21, 1]) == {"last": "r1", "month": "r33"}
    assert chosen([46, 20]) == {"last": "r20"}
    assert chosen([]) == {}


def test_a_scorer_trained_on_tonights_holdout_is_passed_over():
    assert chosen([15, 3, 1], lambda night: night.as_of <= days_before(14)) == {"last": "r15"}
    assert chosen([3, 1], lambda night: night.as_of <= days_before(14)) == {}


def test_the_newest_that_fits_is_read_without_reading_all():
    asked = []

    def fits(night):
        asked.append(night.run_id)
        return True

    chosen(list(range(400, 45, -1)), fits)
    assert asked == ["r46"]


def test_the_champion_of_an_instant_is_that_of_the_last_publication_before_it():
    past = history(publication(1, 2), publication(2, 1))
    assert [champion.run_id for champion in past.published(NIGHT)] == ["r2", "r1"]
    assert past.champion(NIGHT).run_id == "r1"
    assert past.champion(days_before(1)).run_id == "r2"
    assert past.champion(days_before(2)) is None
    assert past.live.run_id == "r1"
    assert past.publication_of("r2").generation == 1
    assert past.publication_of("r3") is None


def test_a_version_belongs_to_its_newest_publication():
    again = publication(1, 2, "r1").model_copy(update={"model_version": "1"})
    past = history(publication(2, 1), again)
    assert past.by_version == {1: again}


def test_of_two_decisions_for_one_as_of_the_later_line_counts():
    lines = [decision(5, "keep", "a"), decision(3, "keep", "b"), decision(5, "switch", "c")]
    past = history(*lines)
    assert [entry.run_id for entry in past.decisions] == ["c", "b"]
    assert past.decisions_before(days_before(3)) == (lines[2],)
    assert past.last_decision().run_id == "b"
    assert past.last_decision(days_before(4)).run_id == "c"
    assert past.last_decision(days_before(6)) is None


def pinned(lines, before=NIGHT):
    return history(*lines).pinned(before, 200)


def test_the_length_of_a_holdout_is_that_of_the_newest_run_but_the_first():
    lines = [
        decision(9, "first", holdout_days=28),
        decision(5, "keep", holdout_days=7),
        decision(3, "refresh", holdout_days=14),
    ]
    assert pinned(lines[:1]).holdout_days is None
    assert pinned(lines).holdout_days == 14
    assert pinned(lines, days_before(4)).holdout_days == 7


def test_a_holdout_shrinks_only_after_four_weeks_with_enough_users():
    def lines(*seven_days):
        return [
            decision(7 * week, "refresh", holdout_days=28, judged=((7, users), (28, 900)))
            for week, users in reversed(list(enumerate(seven_days, start=1)))
        ]

    assert pinned(lines(200, 200, 200)).shorter == ()  # three runs
    assert pinned(lines(200, 200, 200, 200)).shorter == (7, 28)
    assert pinned(lines(200, 199, 200, 200)).shorter == (28,)
    # Only the last 28 days count.
    assert pinned(lines(200, 200, 200, 200, 1)).shorter == (7, 28)


def test_a_length_that_had_too_few_users_of_the_stored_window_had_not_enough():
    lines = [
        decision(7 * week, "refresh", holdout_days=14, judged=((7, 210), (14, 300), (28, 500)))
        for week in (4, 3, 2)
    ]
    judged = ((7, 210), (14, 300), (28, 500))
    kept = decision(7, "keep", holdout_days=7, judged=judged)
    waiting = kept.model_copy(update={"decision": replace(kept.decision, waiting=True)})
    assert pinned([*lines, waiting]).waited
    assert pinned([*lines, waiting]).shorter == (14, 28)
    later = decision(6, "refresh", holdout_days=14, judged=judged)
    assert not pinned([*lines, waiting, later]).waited


def test_the_task_is_pinned_by_the_first_run_with_enough_users():
    views = KEY.model_copy(update={"target_kinds": ("view",), "task": "discovery"})
    few = decision(3, comparison_key=views, judged=((7, 90), (28, 199)))
    assert pinned([few]) == PinnedTask(holdout_days=7)
    many = decision(2, comparison_key=views, judged=((7, 90), (28, 200)))
    assert pinned([few, many]).target_kinds == ("view",)
    later = decision(1)
    assert (pinned([few, many, later]).task, pinned([few, many, later]).target_kinds) == (
        "repeat",
        ("purchase",),
    )
    # A run with too few users pins nothing else.
    assert pinned([many, decision(1, judged=((7, 90),))]).target_kinds == ("view",)


def test_event_weights_are_those_that_were_chosen_for_the_same_settings():
    configured = FeaturesConfig()
    newer = FeaturesConfig(value="log")
    lines = [
        decision(2, weights=SelectedWeights(configured=configured, chosen=newer)),
        decision(1, weights=SelectedWeights(configured=newer, chosen=newer)),
    ]
    past = history(*lines)
    assert past.last_weights(NIGHT, configured) == newer
    assert past.last_weights(days_before(2), configured) is None


def test_a_selected_recipe_replaces_the_configured_one_from_the_next_run_on():
    selected = recipe_from({"family": "als", "alpha": 7.0})
    past = history(decision(2, selected_recipes={ALS.hash: selected}))
    assert past.selected_recipes({"als": ALS}, NIGHT) == {"als": selected}
    assert past.selected_recipes({"als": ALS}, days_before(2)) == {"als": ALS}


def test_a_line_whose_recipe_cannot_be_read_is_named():
    line = publication(1).plain()
    assert parse_entry(line) == publication(1)
    with raises("ledger.invalid_entry"):
        parse_entry({**line, "recipe": {**line["recipe"], "factors": 0}})


def test_a_seed_sd_counts_for_ninety_days_and_the_same_task():
    past = history(
        calibration(10, 0.002),
        calibration(90, 0.009),
        calibration(1, 0.5, task="discovery"),
        calibration(1, 0.6, k=10),
        calibration(91, 0.1, family="svd"),
        calibration(-1, 0.2, family="ease"),
        calibration(90, 0.3, family="bpr"),
    )
    assert past.seed_sds(NIGHT, "repeat", 20) == {"als": 0.002, "bpr": 0.3}
    assert history().seed_sds(NIGHT, None, 20) == {}
    assert past.last_calibration(days_before(10)).seed_sd == 0.002


def override(age, recipe="als"):
    """A user accepts a recipe of the run so many days before `NIGHT`."""
    made = decision(age, "block")
    return OverrideEntry(
        key=f"override:r{age}",
        as_of=made.as_of,
        run_id=f"r{age}",
        kind="refresh",
        recipe=recipe,
        sentence="",
        output_sha256="0" * 64,
        snapshot_sha256="0" * 64,
        decision=made.decision,
        by="Ada",
        reason="so",
    )


def test_an_accepted_run_starts_the_references_anew():
    published = [publication(age, number) for number, age in enumerate((30, 12, 10, 5), start=1)]
    past = history(*published, decision(10, "block"), override(10))
    assert [run.run_id for run in past.reference_runs(NIGHT)] == ["r10", "r5"]
    # A run before it has the references that it had.
    assert [run.run_id for run in past.reference_runs(days_before(10))] == ["r30", "r12"]


def test_an_accepted_run_that_was_not_published_is_a_reference():
    # A refresh that the cold check stopped is not a reference.
    stopped = decision(11, "refresh")
    past = history(publication(30), stopped, decision(10, "block"), override(10))
    assert [run.run_id for run in past.accepted] == ["r30", "r10"]
    [reference] = past.reference_runs(NIGHT)
    assert (reference.run_id, reference.name) == ("r10", "als")
    # A switch that is not published changes no champion: its recipe is compared.
    switched = history(publication(30), decision(10, "refresh"), override(10, "svd"))
    assert [run.name for run in switched.reference_runs(NIGHT)] == ["als"]
    live = history(publication(10, name="svd"), decision(10, "refresh"), override(10, "svd"))
    assert [run.name for run in live.reference_runs(NIGHT)] == ["svd"]


def test_an_accepted_target_is_pinned_until_a_run_pins_another_one():
    def target(age):
        return TargetEntry(
            key=f"target:r{age}", as_of=days_before(age), run_id=f"r{age}",
            target_kinds=("view",), by="Ada", reason="x", sentence="x",
        )  # fmt: skip

    def kinds(*entries, before=NIGHT):
        return history(*entries).pinned(before, 200).target_kinds

    judged = {"judged": ((7, 300),)}
    old, new = decision(5, **judged), decision(1, **judged)
    assert kinds(old, target(5)) == ("view",)
    assert kinds(target(5)) == ("view",)
    # The run of its as-of, started again, keeps the target that it had.
    assert kinds(old, target(5), before=days_before(5)) is None
    assert kinds(old, target(5), new) == KEY.target_kinds != ("view",)
    # A run with too few users pins nothing.
    assert kinds(old, target(5), decision(1, judged=((7, 100),))) == ("view",)
