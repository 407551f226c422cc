"""The file of all studies of a workspace.

Guarantees: a study that a crash left without its facts is begun again; failures of the file raise
`StorageError`. The caller holds the lock: one process at a time writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from pipeline.errors import StorageError
from pipeline.models.search import Axis
from pipeline.stores.studies.study import START, Study, import_optuna

FILE: Final = "studies.db"
_HALVING: Final = 2
"""Reduction factor of successive halving: one trial in this many continues after a window."""
_FACTS: Final = "facts"


class Studies:
    """All studies of a workspace. A context manager: leaving it closes the file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._optuna = import_optuna()
        self._pruner = self._optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=_HALVING
        )

    def __enter__(self) -> Self:
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / FILE).absolute()
            try:
                self._storage = self._optuna.storages.RDBStorage(f"sqlite:///{file}")
            except RuntimeError as fault:  # the file is of another version of Optuna
                raise StorageError(
                    "study.unusable", f"{file}: {fault}; move the file away to begin new studies"
                ) from fault
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def find(self, study_id: str) -> Study | None:
        """Return a study after recovering the trials of a crashed process; None if it is new."""
        with self._errors():
            facts = self._facts().get(study_id)
            if facts is None:
                return None
            study = self._study(study_id, facts)
            study.recover()
        return study

    def begin(
        self,
        study_id: str,
        facts: Mapping[str, Any],
        axes: Mapping[str, Axis],
        start: Mapping[str, float],
        others: Sequence[Mapping[str, float]] = (),
    ) -> Study:
        """Begin a study.

        Parameters
        ----------
        study_id
            Name of the study.
        facts
            JSON values that are stored with the study.
        axes
            Searched hyperparameters by name.
        start
            Values by axis of the first trial; axes may be missing.
        others
            Values by axis of the next trials.
        """
        facts = {**facts, "axes": {name: vars(axis) for name, axis in axes.items()}}
        with self._errors():
            study = self._optuna.create_study(
                storage=self._storage,
                study_name=study_id,
                direction="maximize",
                load_if_exists=True,  # a process may have crashed before it wrote the facts
                pruner=self._pruner,
            )
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(dict(start), user_attrs={START: True})
            for values in others:
                study.enqueue_trial(dict(values), skip_if_exists=True)
            # Last: `find` ignores a study without facts, so a crash before this begins it again.
            study.set_user_attr(_FACTS, facts)
            return Study(study, self._facts()[study_id], self._errors)

    def last(self, key: str, but: str) -> Study | None:
        """Return the newest other study with the same key.

        Parameters
        ----------
        key
            Value of ``key`` in the facts.
        but
            Study that is not returned.
        """
        with self._errors():
            facts = self._facts()
            names = [name for name in facts if facts[name]["key"] == key and name != but]
            return self._study(names[-1], facts[names[-1]]) if names else None

    def facts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the facts of all studies, oldest first."""
        with self._errors():
            return tuple(self._facts().values())

    def _facts(self) -> dict[str, dict[str, Any]]:
        """Return the facts of all studies by name, oldest first."""
        studies = sorted(self._storage.get_all_studies(), key=lambda study: study._study_id)
        return {s.study_name: s.user_attrs[_FACTS] for s in studies if _FACTS in s.user_attrs}

    def _study(self, study_id: str, facts: Mapping[str, Any]) -> Study:
        load = self._optuna.load_study
        study = load(study_name=study_id, storage=self._storage, pruner=self._pruner)
        return Study(study, facts, self._errors)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn failures of the file into a `StorageError`."""
        from sqlalchemy.exc import SQLAlchemyError

        storage_error = self._optuna.exceptions.StorageInternalError
        try:
            yield
        except (OSError, SQLAlchemyError, storage_error) as fault:
            reason = str(fault.__cause__ or fault).splitlines()[0]
            raise StorageError(
                "study.unusable",
                f"cannot use the studies in {self._folder}: {reason}; correct the cause, such as a "
                f"full disk, or restore {FILE} from a backup",
            ) from fault
