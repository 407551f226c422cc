"""One study: proposes trials and stores their results.

Guarantees:

* A finished trial is on the disk before the next one begins.
* A trial of a crashed process is tried once more, and fails if a second process crashes on it.
* A continued study proposes the trials that an uninterrupted one would have proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pipeline.errors import ResourceError
from pipeline.models.search import Axis
from pipeline.stores.studies.trial import COMPLETE, FAILED, PRUNED, Asked, Trial

_ENOUGH: Final = 8
"""Minimum number of trials for importances."""
START: Final = "start"
_NOTES, _TRIES, _AGAIN = "notes", "tries", "again"


class Study:
    """One study.

    Parameters
    ----------
    study
        Optuna's study.
    facts
        JSON values that the study was begun with.
    errors
        Context that turns failures of the file into a `StorageError`.
    """

    def __init__(
        self,
        study: Any,
        facts: Mapping[str, Any],
        errors: Callable[[], AbstractContextManager[None]],
    ) -> None:
        optuna = import_optuna()
        self.study_id: str = study.study_name
        self.facts = facts
        self._study = study
        self._errors = errors
        states = self._states = optuna.trial.TrialState
        self._ends = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}
        self._spans = {name: _distribution(optuna, axis) for name, axis in facts["axes"].items()}

    @property
    def axes(self) -> dict[str, Axis]:
        """The searched hyperparameters by name."""
        return {
            name: Axis(**{**axis, "path": tuple(axis["path"])})
            for name, axis in self.facts["axes"].items()
        }

    def ask(self) -> Asked:
        """Return the next trial: a waiting one, otherwise a proposal of the sampler."""
        with self._errors():
            trials = self._study.get_trials(deepcopy=False)
            waiting = [t for t in trials if t.state == self._states.WAITING]
            begins = bool(waiting) and START in waiting[0].user_attrs
            spans = dict(self._spans)
            if begins:  # further fields of the start are not numbers, or outside their span
                spans = {n: spans[n] for n in waiting[0].system_attrs["fixed_params"]}
            # A new sampler per trial, seeded by the trials on the disk: a continued study draws the
            # same numbers as an uninterrupted one.
            counted = sum(_AGAIN not in t.user_attrs for t in trials) - len(waiting)
            self._study.sampler = import_optuna().samplers.TPESampler(
                seed=counted, constant_liar=False
            )
            trial = self._study.ask(spans)
            return Asked(trial.number, dict(trial.params), begins, trial)

    def report(self, trial: Asked, step: int, value: float) -> bool:
        """Store an intermediate value, and return whether the trial should continue.

        Parameters
        ----------
        trial
            The trial.
        step
            Number of measured tuning windows: 1, 2, ...
        value
            Mean over these windows.
        """
        with self._errors():
            trial._trial.report(value, step)
            hopeless = bool(trial._trial.should_prune())
        # The start is measured on all windows: other trials are compared with it.
        return trial.start or not hopeless

    def finish(
        self, trial: Asked, state: str, notes: Mapping[str, Any], value: float | None = None
    ) -> None:
        """End a trial.

        Parameters
        ----------
        trial
            The trial.
        state
            ``complete``, ``pruned`` or ``failed``.
        notes
            JSON values that are stored with the trial.
        value
            Result of a complete trial.
        """
        with self._errors():
            trial._trial.set_user_attr(_NOTES, dict(notes))
            self._study.tell(trial._trial, value, state=self._ends[state])

    def set_aside(self, trial: Asked) -> None:
        """Return a trial unmeasured; it waits for the next process."""
        with self._errors():
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            self._again(frozen, int(frozen.user_attrs.get(_TRIES, 1)))

    def note(self, name: str, value: Any) -> None:
        """Store a value with the study.

        Parameters
        ----------
        name
            Key of `noted`.
        value
            JSON values.
        """
        with self._errors():
            self._study.set_user_attr(name, value)

    def noted(self, name: str) -> Any:
        """Return a value that `note` stored; None if there is none."""
        with self._errors():
            return self._study.user_attrs.get(name)

    def trials(self) -> tuple[Trial, ...]:
        """Return the finished trials in order, without those that were set aside."""
        names = {state: name for name, state in self._ends.items()}
        with self._errors():
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
        """Return the share of the variance that each axis explains, by fANOVA.

        A forest of trees over the axes, variance by axis (Hutter, Hoos and Leyton-Brown 2014).

        Parameters
        ----------
        values
            Results by number of the trial, measured on the same windows.

        Returns
        -------
        dict
            Shares by axis; empty for fewer than 8 trials or equal results.
        """
        optuna = import_optuna()
        with self._errors():
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
        """Let the trials of a crashed process wait once more, or fail the second time."""
        for trial in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            tries = int(trial.user_attrs.get(_TRIES, 1))
            if tries == 1:
                self._again(trial, tries + 1)
            else:
                why = {"failure": "the process ended twice while it measured this trial"}
                self._fail(trial, _NOTES, why)

    def _again(self, trial: Any, tries: int) -> None:
        """Let a running trial wait once more."""
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        begins = {START: True} if START in trial.user_attrs else {}
        # Enqueued before the running one ends: a crash between the two loses no trial.
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
    """Return Optuna with its log off; ``extra.optuna_missing`` if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ResourceError(
            "extra.optuna_missing",
            "optuna is not installed; run `make setup`",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failures are raised
    return optuna
