"""One study: asks for trials, and keeps what became of them.

Promises: a trial that was told is on disk before the next one begins; one that a killed process
left behind is tried once more, and given up if it kills a second process; a study that goes on
proposes what an unbroken one would have proposed next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pipeline.errors import ResourceError
from pipeline.models.search import Axis
from pipeline.stores.studies.trial import COMPLETE, FAILED, PRUNED, Asked, Trial

_ENOUGH: Final = 8
"""Trials without which nothing is said of importance."""
START: Final = "start"
_NOTES, _TRIES, _AGAIN = "notes", "tries", "again"


class Study:
    """One study: asks for trials and keeps what became of them.

    Attributes
    ----------
    facts
        What it was begun with.
    """

    def __init__(
        self, study: Any, facts: Mapping[str, Any], door: Callable[[], AbstractContextManager[None]]
    ) -> None:
        optuna = import_optuna()
        self.study_id: str = study.study_name
        self.facts = facts
        self._study = study
        self._door = door
        states = self._states = optuna.trial.TrialState
        self._ends = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}
        self._spans = {name: _distribution(optuna, axis) for name, axis in facts["axes"].items()}

    @property
    def axes(self) -> dict[str, Axis]:
        """What it moves."""
        return {
            name: Axis(**{**axis, "path": tuple(axis["path"])})
            for name, axis in self.facts["axes"].items()
        }

    def ask(self) -> Asked:
        """Return the next trial: one that waits, else one that the sampler proposes."""
        with self._door():
            trials = self._study.get_trials(deepcopy=False)
            waiting = [t for t in trials if t.state == self._states.WAITING]
            begins = bool(waiting) and START in waiting[0].user_attrs
            spans = dict(self._spans)
            if begins:  # its other fields are no numbers, or lie outside of their spans
                spans = {n: spans[n] for n in waiting[0].system_attrs["fixed_params"]}
            # A sampler for each trial: where it stands follows from what is on disk.
            counted = sum(_AGAIN not in t.user_attrs for t in trials) - len(waiting)
            self._study.sampler = import_optuna().samplers.TPESampler(
                seed=counted, constant_liar=False
            )
            trial = self._study.ask(spans)
            return Asked(trial.number, dict(trial.params), begins, trial)

    def report(self, asked: Asked, step: int, value: float) -> bool:
        """Keep the mean of the first `step` windows (1, 2, ...); says whether to go on."""
        with self._door():
            asked._trial.report(value, step)
            hopeless = bool(asked._trial.should_prune())
        return asked.start or not hopeless

    def finish(
        self, asked: Asked, state: str, notes: Mapping[str, Any], value: float | None = None
    ) -> None:
        """End a trial; `value` belongs to a complete one."""
        with self._door():
            asked._trial.set_user_attr(_NOTES, dict(notes))
            self._study.tell(asked._trial, value, state=self._ends[state])

    def set_aside(self, asked: Asked) -> None:
        """Give a trial back unmeasured: it waits for the next process."""
        with self._door():
            frozen = self._study.get_trials(deepcopy=False)[asked.number]
            self._again(frozen, int(frozen.user_attrs.get(_TRIES, 1)))

    def note(self, name: str, value: Any) -> None:
        """Keep plain JSON beside the trials."""
        with self._door():
            self._study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """Return what `note` kept, ``None`` without."""
        with self._door():
            return self._study.user_attrs.get(name)

    def trials(self) -> tuple[Trial, ...]:
        """Return those that came to their end, in order; not those that were set aside."""
        names = {state: name for name, state in self._ends.items()}
        with self._door():
            return tuple(
                Trial(
                    number=t.number,
                    state=names[t.state],
                    values=dict(t.params),
                    start=START in t.user_attrs,
                    notes=t.user_attrs.get(_NOTES, {}),
                )
                for t in self._study.get_trials(deepcopy=False)
                if t.state in names and _AGAIN not in t.user_attrs
            )

    def importance(self, values: Mapping[int, float]) -> dict[str, float]:
        """Return the share of what trials differ in that each axis explains, by fANOVA.

        (Hutter, Hoos and Leyton-Brown 2014: a forest of trees over the axes, variance by axis.)

        Parameters
        ----------
        values
            By trial's number; all measured alike. Too few, or all the same: nothing is said.
        """
        optuna = import_optuna()
        with self._door():
            frozen = self._study.get_trials(deepcopy=False)
        create = optuna.trial.create_trial
        trials = [
            create(params=frozen[n].params, distributions=frozen[n].distributions, value=value)
            for n, value in sorted(values.items())
            if frozen[n].params.keys() == self._spans.keys()
        ]
        if len(trials) < _ENOUGH or len({trial.value for trial in trials}) < 2:
            return {}
        alike = optuna.create_study(direction="maximize")
        alike.add_trials(trials)
        importances = optuna.importance.get_param_importances(
            alike, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
        return {name: float(share) for name, share in importances.items()}

    def recover(self) -> None:
        """Let what a dead process was measuring wait once more, or give it up."""
        for trial in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            tries = int(trial.user_attrs.get(_TRIES, 1))
            if tries == 1:
                self._again(trial, tries + 1)
            else:
                why = {"failure": "the process died twice while it was measured"}
                self._fail(trial, _NOTES, why)

    def _again(self, trial: Any, tries: int) -> None:
        """Let a trial that is running wait once more, before it ends: so none is lost."""
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        begins = {START: True} if START in trial.user_attrs else {}
        if values or begins:
            self._study.enqueue_trial(values, user_attrs={_TRIES: tries, **begins})
        self._fail(trial, _AGAIN, True)

    def _fail(self, trial: Any, name: str, why: Any) -> None:
        self._study._storage.set_trial_user_attr(trial._trial_id, name, why)
        self._study.tell(trial.number, state=self._states.FAIL)


def _distribution(optuna: Any, axis: Mapping[str, Any]) -> Any:
    kinds = optuna.distributions
    if axis["whole"]:
        return kinds.IntDistribution(int(axis["low"]), int(axis["high"]), log=axis["log"])
    return kinds.FloatDistribution(axis["low"], axis["high"], log=axis["log"])


def import_optuna() -> Any:
    """Return the library, quiet; raises `ResourceError` where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ResourceError(
            "extra.optuna_missing",
            "optuna is not installed; `make setup` installs what tuning needs",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what fails is raised, as one sentence
    return optuna
