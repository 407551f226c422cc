"""The file that holds all studies of a workspace.

Promises: a study is begun as a whole or begun again; a failure of the file is one sentence. One
writer at a time: the caller holds the lock.
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
"""Of the trials that were measured on a window, one in this many goes on to the next one."""
_FACTS: Final = "facts"


class Studies:
    """All studies of a workspace; a context manager, which closes the file."""

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
            except RuntimeError as fault:  # written by another version of Optuna
                raise StorageError("study.unusable", f"{file}: {fault}") from fault
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def find(self, study_id: str) -> Study | None:
        """Return a study that was begun, what a killed process left behind made good."""
        with self._errors():
            facts = self._known().get(study_id)
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
        facts
            Plain JSON that is kept with it.
        start, others
            Values by axis that are tried before anything else; those of `start` need not be all.
        """
        facts = {**facts, "axes": {name: vars(axis) for name, axis in axes.items()}}
        with self._errors():
            made = self._optuna.create_study(
                storage=self._storage,
                study_name=study_id,
                direction="maximize",
                load_if_exists=True,  # of a process that died before it wrote the facts
                pruner=self._pruner,
            )
            if not made.get_trials(deepcopy=False):
                made.enqueue_trial(dict(start), user_attrs={START: True})
            for values in others:
                made.enqueue_trial(dict(values), skip_if_exists=True)
            made.set_user_attr(_FACTS, facts)
            return Study(made, self._known()[study_id], self._errors)

    def last(self, key: str, but: str) -> Study | None:
        """Return the newest study whose facts have this ``key``, other than `but`."""
        with self._errors():
            known = self._known()
            names = [name for name in known if known[name]["key"] == key and name != but]
            return self._study(names[-1], known[names[-1]]) if names else None

    def facts(self) -> tuple[Mapping[str, Any], ...]:
        """Return what all studies were begun with, oldest first."""
        with self._errors():
            return tuple(self._known().values())

    def _known(self) -> dict[str, dict[str, Any]]:
        """Return the facts of all studies by name, oldest first."""
        studies = sorted(self._storage.get_all_studies(), key=lambda one: one._study_id)
        return {s.study_name: s.user_attrs[_FACTS] for s in studies if _FACTS in s.user_attrs}

    def _study(self, study_id: str, facts: Mapping[str, Any]) -> Study:
        load = self._optuna.load_study
        study = load(study_name=study_id, storage=self._storage, pruner=self._pruner)
        return Study(study, facts, self._errors)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn failures of the file into one sentence."""
        from sqlalchemy.exc import SQLAlchemyError

        storage_error = self._optuna.exceptions.StorageInternalError
        try:
            yield
        except (OSError, SQLAlchemyError, storage_error) as fault:
            reason = str(fault.__cause__ or fault).splitlines()[0]
            raise StorageError(
                "study.unusable", f"the studies in {self._folder} cannot be used: {reason}"
            ) from fault
