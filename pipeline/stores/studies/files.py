"""Result files of a study: one folder, whose files are replaced when the study has more trials.

Guarantees: a crash leaves the old or the new content of a file, never a part; a file that differs
from its checksum is not returned; Optuna is not needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.errors import StorageError
from pipeline.stores.disk import fault_text, read_regular, storage_errors, write_synced

_MANIFEST: Final = "manifest.json"


class StudyFiles:
    """The result files of one study, in ``<folder>/<study_id>/``."""

    def __init__(self, folder: Path, study_id: str) -> None:
        self._folder = folder / study_id

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files by name, and then their checksums."""
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps(sums, sort_keys=True, indent=1).encode()
        with storage_errors("storage.cannot_write", f"cannot write {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, data in {**files, _MANIFEST: manifest}.items():
                new = self._folder / f"{name}.new"
                with new.open("wb") as file:
                    write_synced(file, data)
                # A rename replaces the file of an earlier state in one step.
                new.rename(self._folder / name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files, sorted."""
        return tuple(sorted(self._sums()))

    def path(self, name: str) -> Path:
        """Return the path of a file after checking its checksum."""
        self.read(name)
        return self._folder / name

    def read(self, name: str) -> bytes:
        """Return the content of a file after checking its checksum.

        Raises
        ------
        StorageError
            ``storage.cannot_read``, ``study.checksum``, ``study.no_result``, ``study.unreadable``
        """
        sums, path = self._sums(), self._folder / name
        with storage_errors("storage.cannot_read", f"cannot read {path}"):
            data = read_regular(path)
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise StorageError(
                "study.checksum",
                f"{path} was changed: its sha256 differs; run `nightjar tune` again",
            )
        return data

    def _sums(self) -> dict[str, str]:
        path = self._folder / _MANIFEST
        try:
            sums: dict[str, str] = json.loads(read_regular(path))
        except FileNotFoundError:
            raise StorageError(
                "study.no_result", f"{self._folder} has no result of a study; run `nightjar tune`"
            ) from None
        except OSError as error:
            raise StorageError(
                "study.unreadable", f"cannot read {path}: {fault_text(error)}"
            ) from error
        except ValueError as error:
            raise StorageError(
                "study.unreadable", f"{path} is damaged: {error}; run `nightjar tune` again"
            ) from error
        return sums
