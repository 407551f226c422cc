"""The workspace: one folder with all data, runs and settings, and the clients of its stores.

Guarantees:

* A folder without `nightjar.toml` is not a workspace: it raises an error and is never filled.
* `init` changes nothing in an existing workspace; a new one is accessible to its owner only, or
  also to one group (`permissions`).
* A path that the lake's libraries would misread is refused before anything is written.
* After `open` and `init`, files that the process creates have the modes of this workspace.
* Clients are opened at first use, so a command pays only for those that it needs.
* A ledger or a vault that is older than the lake is not opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.errors import ConfigError
from pipeline.stores.disk import storage_errors
from pipeline.stores.lake import Lake
from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Run, Runs, is_run_id
from pipeline.stores.vault import Vault, load_key, make_key, parse_key
from pipeline.workspace import permissions
from pipeline.workspace.agreement import (
    compare_ledger,
    compare_stores,
    compare_tables,
    compare_vault,
)
from pipeline.workspace.config import TEMPLATE, Composed, Config, compose
from pipeline.workspace.memory import refuse_small_address_space

CONFIG_FILE = "nightjar.toml"
LEARNT_FROM = ("events", "items", "users")
"""Tables that recipes are trained on."""
PINS = "pins"
"""Lock of the pins: shared to pin versions, exclusive to delete versions without a pin."""
_MISREAD: Final = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\\\[\]^|=]|[\udc80-\udcff]")
"""Parts of a path that Delta or polars misread, bytes that are not UTF-8 included."""
_KEY_VARIABLE = "NIGHTJAR_VAULT_KEY"
_KEY_FILE_VARIABLE = "NIGHTJAR_VAULT_KEY_FILE"


@dataclass(frozen=True)
class Workspace:
    """A workspace: its folder and its composed config."""

    home: Path
    composed: Composed

    @classmethod
    def open(cls, home: Path) -> Workspace:
        """Open the workspace at `home`, and set the umask of the process to that of the workspace.

        Raises
        ------
        ConfigError
            `workspace.not_found`: it is not one; `workspace.path_unusable`;
            `workspace.unknown_group`: the machine does not have its group.
        """
        home = _usable(home.resolve())
        if not (home / CONFIG_FILE).is_file():
            raise ConfigError(
                "workspace.not_found",
                f"{home} is not a workspace: it has no {CONFIG_FILE}; create one with "
                f"`nightjar init {home}`",
            )
        composed = compose(home / CONFIG_FILE, os.environ)
        permissions.set_umask(composed.config.workspace.group)
        return cls(home, composed)

    @classmethod
    def init(cls, home: Path, config: str = TEMPLATE, group: str | None = None) -> Workspace:
        """Create a workspace, or open the existing one.

        The vault's key is created unless the environment names one.

        Parameters
        ----------
        home
            An empty or new folder, or a workspace.
        config
            Text of the new config file.
        group
            Group whose members may read the workspace and deliver files; None for the owner only.

        Raises
        ------
        ConfigError
            `workspace.not_empty`, `workspace.path_unusable`; `workspace.unknown_group`,
            `workspace.group_not_allowed`; `workspace.group_differs`: the existing workspace has
            another group; `workspace.foreign_folder`: the folder, a link that leads to it, or
            something in it, is not the caller's.
        StorageError
            `workspace.cannot_write`.
        """
        permissions.require_own_links(home)
        home = _usable(home.resolve())
        if (home / CONFIG_FILE).exists():
            existing = cls.open(home)
            existing._require_group(group)
            return existing
        partial = {"landing", "secrets", "runs", f"{CONFIG_FILE}.new"}  # of a killed `init`
        others = sorted({p.name for p in home.iterdir()} - partial) if home.is_dir() else []
        if others:
            raise ConfigError(
                "workspace.not_empty",
                f"{home} is neither empty nor a workspace: it holds {', '.join(others[:3])}; name "
                "an empty or a new folder",
            )
        if group is not None:
            permissions.require_membership(group)
            config += f"\n[workspace]\ngroup = {json.dumps(group)}\n"
        with storage_errors("workspace.cannot_write", f"cannot write the workspace {home}"):
            home.mkdir(parents=True, exist_ok=True)
            permissions.take_over(home)
            # Other users of the machine must not read raw ids, whatever the caller's umask is.
            permissions.set_umask(group)
            for folder in ("landing/events", "landing/items", "landing/users", "runs", "secrets"):
                (home / folder).mkdir(parents=True, exist_ok=True)
            permissions.share(home, group)
            key = home / "secrets" / "vault.key"
            if not (key.exists() or _key_given()):
                make_key(key)
            # The config file comes last: it makes the folder a workspace, which is then complete.
            new = home / f"{CONFIG_FILE}.new"
            new.write_text(config, encoding="utf-8")
            new.rename(home / CONFIG_FILE)
        return cls.open(home)

    def _require_group(self, group: str | None) -> None:
        current = self.config.workspace.group
        if group not in (None, current):
            raise ConfigError(
                "workspace.group_differs",
                f"{self.home} is a workspace of "
                + (f"the group {current!r}" if current else "its owner only")
                + f", not of the group {group!r}; create another workspace, or leave out --group",
            )

    @property
    def config(self) -> Config:
        """The composed config."""
        return self.composed.config

    @cached_property
    def lake(self) -> Lake:
        """Client of the Delta tables; opening it checks their last commits."""
        lake = self.damaged_lake
        lake.check_tail()
        return lake

    @property
    def damaged_lake(self) -> Lake:
        """Client of the Delta tables for repairs: opening it checks nothing."""
        refuse_small_address_space()  # the lake's library would abort the process
        return Lake(self.home / "lake", self.config.locks.wait_seconds)

    @property
    def damaged_ledger(self) -> Ledger:
        """Ledger for repairs: opening it compares nothing."""
        return Ledger(self.home / "ledger.jsonl", self.config.locks.wait_seconds)

    def pinning(self) -> AbstractContextManager[None]:
        """Return a lock for the look-up of a version and the write of its pin.

        While it is held, `gc` deletes no version. Acquiring it waits until a `gc` in progress has
        ended its deletions.
        """
        return self.lake.lock(PINS, wait=True, shared=True)

    def current_versions(self, *tables: str) -> dict[str, int | None]:
        """Return the newest version of each table, by default of `LEARNT_FROM`."""
        return {table: self.lake.version(table) for table in tables or LEARNT_FROM}

    def read_pinned(
        self,
        versions: Mapping[str, int | None],
        table: str,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Read a table at its pinned version.

        Parameters
        ----------
        versions
            Table -> version; None for a table that did not exist, which is read as empty.
        columns
            All by default.
        where
            Filter that the lake applies while it reads.
        """
        version = versions[table]
        if version is None:
            return self.lake.empty(table, columns)
        return self.lake.read(table, version=version, columns=columns, where=where)

    @cached_property
    def runs(self) -> Runs:
        """Files of all runs."""
        return Runs(self.home / "runs")

    @cached_property
    def ledger(self) -> Ledger:
        """Ledger of decisions and publications; opening it compares it with the lake."""
        ledger = self.damaged_ledger
        compare_ledger(self.lake, ledger)
        return ledger

    @cached_property
    def vault(self) -> Vault:
        """Vault of pseudonyms; opening it compares it with the lake."""
        compare_tables(self.lake)
        compare_vault(self.lake, self.vault_file)
        return Vault(self.vault_file, self.vault_key)

    @property
    def vault_file(self) -> Path:
        """File of the vault."""
        return self.home / "vault.db"

    @property
    def vault_key(self) -> bytes:
        """Key of the vault, from the environment, else from a key file."""
        if given := os.environ.get(_KEY_VARIABLE):
            return parse_key(given)
        file = os.environ.get(_KEY_FILE_VARIABLE)
        return load_key(Path(file) if file else self.home / "secrets" / "vault.key")

    def create_vault(self) -> None:
        """Create the vault unless it exists; call `compare_stores` first."""
        Vault(self.vault_file, self.vault_key, create=True)

    def compare_stores(self) -> None:
        """Raise `StorageError` if a store is older than another one; for the start of a pass."""
        compare_stores(self.lake, self.damaged_ledger, self.vault_file)

    def run(self, run_id: str) -> Run:
        """Return a run that was started; `run.unknown` for any other."""
        run = self.runs.open(run_id) if is_run_id(run_id) else None
        if run is None or run.committed("snapshot") is None:
            newest = ", ".join(r.run_id for r in self.runs.starting_with("")[-3:])
            known = (
                f"the newest are {newest}"
                if newest
                else "there is no run yet; start one with `nightjar nightly`"
            )
            raise ConfigError("run.unknown", f"unknown run {run_id} in {self.home}; {known}")
        return run

    @property
    def tracking_uri(self) -> str:
        """Address of MLflow: the configured server, else a database in the workspace."""
        return self.config.registry.tracking_uri or f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's database in the workspace, used without a configured server."""
        return self.home / "mlflow" / "mlflow.db"


def _key_given() -> bool:
    return any(os.environ.get(name) for name in (_KEY_VARIABLE, _KEY_FILE_VARIABLE))


def _usable(home: Path) -> Path:
    """Return the folder of a workspace; `workspace.path_unusable` if the lake cannot be there."""
    if match := _MISREAD.search(str(home)):
        raise ConfigError(
            "workspace.path_unusable",
            f"{home} contains {match[0]!a}, which Delta or polars would misread; use a path "
            "without it",
        )
    return home
