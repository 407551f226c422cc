"""Restoration of a table from what is left of it: its checkpoints, its checksums, its sound files.

Guarantees:

* A checkpoint is made again only from commits whose checksums are right.
* Only missing checksums are accepted; a file that differs from its checksum never is.
* After a crash the next call continues.
"""

from __future__ import annotations

import urllib.parse
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import polars as pl
from deltalake import DeltaTable

from pipeline.errors import LakeError
from pipeline.stores.disk import sha256, sync
from pipeline.stores.lake.checksums import Line
from pipeline.stores.lake.commit_integrity import (
    CHECKPOINT,
    LOG,
    REPAIR_SUMS,
    CommitIntegrity,
    checkpoint_name,
    commit_name,
)
from pipeline.stores.lake.connection import lake_errors
from pipeline.stores.lake.tables import PARTITIONS, schema_of

_POINTER: Final = "_last_checkpoint"


class Restoration(CommitIntegrity):
    """Restoration of one table; the caller holds the lock of its writers."""

    def rebuild_checkpoints(self) -> tuple[str, ...]:
        """Make damaged and lost checkpoints again from the JSON log; remove a wrong pointer.

        Returns
        -------
        tuple of str
            Names of the checkpoints, and of the pointer ``_last_checkpoint``.

        Raises
        ------
        LakeError
            ``lake.log_incomplete``: the commits that a checkpoint needs are damaged or gone;
            ``lake.file_unsummed``: they have no checksums.
        """
        sums = self._readable_sums()
        there = {checkpoint_name(v) for v in self._versions(CHECKPOINT)}
        named = {name for name in sums if CHECKPOINT.fullmatch(name.rpartition("/")[2])}
        # Oldest first: a later one is made from the earlier ones.
        damaged = sorted(name for name in there | named if not self._is_sound(name, sums))
        for name in damaged:
            version = int(name.rpartition("/")[2].partition(".")[0])
            self._check_commits(version, sums)
            # The library would read the damaged one.
            (self._path / name).unlink(missing_ok=True)
            (self._log / _POINTER).unlink(missing_ok=True)
            with lake_errors(self._table):
                DeltaTable(self._path, version=version).create_checkpoint()
            sync(self._path / name, self._log)
            # Last: without its checksum a checkpoint counts as damaged, so it is made again.
            self._accept({version: {name: sha256(self._path / name)}})
        pointed = (self._log / _POINTER).exists()
        self.remove_wrong_hint()
        if pointed and not (self._log / _POINTER).exists():
            damaged.append(f"{LOG}/{_POINTER}")
        return tuple(damaged)

    def lost_sums(self) -> dict[int, dict[str, str]]:
        """Compute the checksums of the files that have none.

        Returns
        -------
        dict
            Version → file → SHA-256 in hex; empty if no checksum is missing.

        Raises
        ------
        LakeError
            ``lake.log_cut``, ``lake.file_cut``: a file without a checksum is damaged.
        """
        versions = sorted(self._versions())
        if not versions:
            return {}
        sums, lost = self._readable_sums(), defaultdict[int, dict[str, str]](dict)
        for version in versions:
            added = self._added(version)
            self._find_lost(version, {f: s for f, s in added.items() if f not in sums}, lost)
            name = commit_name(version)
            if name not in sums:
                lost[version][name] = sha256(self._path / name)
        for version in self._versions(CHECKPOINT):
            name = checkpoint_name(version)
            if name not in sums:
                with lake_errors(self._table):  # one that a killed process cut cannot be read
                    pl.read_parquet(self._path / name, glob=False)
                lost[version][name] = sha256(self._path / name)
        with lake_errors(self._table):
            actions = pl.DataFrame(DeltaTable(self._path).get_add_actions())
        listed = {file for files in lost.values() for file in files}
        sizes = {
            urllib.parse.unquote(path): size
            for path, size in actions.select("path", "size_bytes").iter_rows()
        }
        older = {f: size for f, size in sizes.items() if f not in sums and f not in listed}
        self._find_lost(min(self._versions(CHECKPOINT), default=versions[0]), older, lost)
        return dict(lost)

    def _find_lost(
        self, version: int, files: Mapping[str, int], lost: dict[int, dict[str, str]]
    ) -> None:
        """Add the checksums of files of known sizes; files that `gc` has removed have none."""
        present = {file: size for file, size in files.items() if (self._path / file).exists()}
        self._check_sizes(version, present)
        for file in present:
            lost[version][file] = sha256(self._path / file)

    def altered_versions(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Return the commits whose files hold other rows than their log entry has a digest of.

        Commits of which files are lost, and those of maintenance whose files `gc` has removed, are
        not compared.
        """
        altered = []
        for version in versions:
            try:
                self._check_rows(version)
            except LakeError as error:
                if error.id == "lake.commit_altered":
                    altered.append(version)
        return tuple(altered)

    def accept_sums(self, lost: Mapping[int, Mapping[str, str]]) -> None:
        """Write the checksums of `lost_sums`, after forcing their files to the disk."""
        paths = [self._path / file for files in lost.values() for file in files]
        sync(*paths, *sorted({path.parent for path in paths} | {self._path, self._root}))
        self._accept(lost)

    def damaged_files(self, files: Collection[str]) -> tuple[str, ...]:
        """Return the data files that are lost or differ from their checksums.

        Parameters
        ----------
        files
            Data files of one version, relative to the table.

        Raises
        ------
        LakeError
            ``lake.file_unsummed``: a file has no checksum, so that it cannot be checked.
        """
        sums = self._readable_sums()
        for file in sorted(files):
            if file not in sums and (self._path / file).exists():
                self._fail("lake.file_unsummed", f"a file has no checksum ({file})", REPAIR_SUMS)
        return tuple(sorted(file for file in files if not self._is_sound(file, sums)))

    def rows(self, files: Collection[str], columns: Collection[str] = ()) -> pl.DataFrame:
        """Read data files of a partitioned table.

        Parameters
        ----------
        files
            Data files, relative to the table.
        columns
            Columns to read; by default all.
        """
        schema, partition = schema_of(self._table), PARTITIONS[self._table]
        if not files:
            return pl.DataFrame(schema=schema).select(columns or schema.names())
        with lake_errors(self._table):
            scan = pl.scan_parquet(
                [self._path / file for file in sorted(files)],
                glob=False,
                hive_partitioning=True,
                hive_schema={partition: schema[partition]},
                schema={name: dtype for name, dtype in schema.items() if name != partition},
            )
            return scan.select(columns or schema.names()).collect()

    def _is_sound(self, file: str, sums: Mapping[str, str]) -> bool:
        path = self._path / file
        return path.is_file() and sha256(path) == sums.get(file)

    def _check_commits(self, version: int, sums: Mapping[str, str]) -> None:
        """Check the commits since the last sound checkpoint, or all of them."""
        earlier = (v for v in self._versions(CHECKPOINT) if v < version)
        base = max((v for v in earlier if self._is_sound(checkpoint_name(v), sums)), default=-1)
        for number in range(base + 1, version + 1):
            if commit_name(number) not in sums and (self._path / commit_name(number)).exists():
                self._fail(
                    "lake.file_unsummed",
                    f"the log of version {number} has no checksum",
                    REPAIR_SUMS,
                )
            if not self._is_sound(commit_name(number), sums):
                raise LakeError(
                    "lake.log_incomplete",
                    f"lake table {self._table}: checkpoint {version} cannot be made again, because "
                    f"the log of version {number} is lost or altered; restore the lake from a "
                    "backup",
                )

    def _readable_sums(self) -> dict[str, str]:
        return {file: total for line in self.sums.readable() for file, total in line.files.items()}

    def _accept(self, lost: Mapping[int, Mapping[str, str]]) -> None:
        lines = (Line(version, files) for version, files in lost.items())
        with self.changing():
            self.sums.replace([*self.sums.readable(), *lines])
