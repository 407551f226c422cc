"""The workspace: one folder with all data, runs and settings, and the clients of its stores.

Guarantees:

* A folder without `nightjar.toml` is not a workspace: it raises an error and is never filled.
* `init` changes nothing in an existing workspace; a new one is accessible to its owner only.
* Clients are opened at first use, so a command pays only for those that it needs.
* A ledger or a vault that is older than the lake is not opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from pipeline.errors import ConfigError
from pipeline.stores.disk import storage_errors
from pipeline.stores.lake import Lake
from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Run, Runs, is_run_id
from pipeline.stores.vault import Vault, load_key, make_key, parse_key
from pipeline.workspace.agreement import compare_ledger, compare_stores, compare_vault
from pipeline.workspace.config import TEMPLATE, Composed, Config, compose

CONFIG_FILE = "nightjar.toml"
LEARNT_FROM = ("events", "items", "users")
"""Tables that recipes are trained on."""
PINS = "pins"
"""Lock of the pins: shared to pin versions, exclusive to delete versions without a pin."""
_KEY_VARIABLE = "NIGHTJAR_VAULT_KEY"
_KEY_FILE_VARIABLE = "NIGHTJAR_VAULT_KEY_FILE"


@dataclass(frozen=True)
class Workspace:
    """A workspace: its folder and its composed config."""

    home: Path
    composed: Composed

    @classmethod
    def open(cls, home: Path) -> Workspace:
        """Open the workspace at `home`; `workspace.not_found` if it is not one."""
        home = home.resolve()
        if not (home / CONFIG_FILE).is_file():
            raise ConfigError(
                "workspace.not_found",
                f"{home} is not a workspace: it has no {CONFIG_FILE}; create one with "
                f"`nightjar init {home}`",
            )
        return cls(home, compose(home / CONFIG_FILE, os.environ))

    @classmethod
    def init(cls, home: Path, config: str = TEMPLATE) -> Workspace:
        """Create a workspace, or open the existing one.

        Parameters
        ----------
        home
            An empty or new folder, or a workspace.
        config
            Text of the new config file.

        Raises
        ------
        ConfigError
            `workspace.not_empty`.
        StorageError
            `workspace.cannot_write`.
        """
        home = home.resolve()
        if (home / CONFIG_FILE).exists():
            return cls.open(home)
        partial = {"landing", "secrets", "runs", f"{CONFIG_FILE}.new"}  # of a killed `init`
        others = sorted({p.name for p in home.iterdir()} - partial) if home.is_dir() else []
        if others:
            raise ConfigError(
                "workspace.not_empty",
                f"{home} is neither empty nor a workspace: it holds {', '.join(others[:3])}; name "
                "an empty or a new folder",
            )
        with storage_errors("workspace.cannot_write", f"cannot write the workspace {home}"):
            # Other users of the machine must not read raw ids, whatever the caller's umask is.
            home.mkdir(parents=True, exist_ok=True)
            home.chmod(0o700)
            for table in ("events", "items", "users"):
                (home / "landing" / table).mkdir(parents=True, exist_ok=True)
            (home / "runs").mkdir(exist_ok=True)
            # The vault's key: no other account of the machine may read it.
            (home / "secrets").mkdir(mode=0o700, exist_ok=True)
            if not (home / "secrets" / "vault.key").exists():
                make_key(home / "secrets" / "vault.key")
            # The config file comes last: it makes the folder a workspace, which is then complete.
            new = home / f"{CONFIG_FILE}.new"
            new.write_text(config, encoding="utf-8")
            new.rename(home / CONFIG_FILE)
        return cls.open(home)

    @property
    def config(self) -> Config:
        """The composed config."""
        return self.composed.config

    @cached_property
    def lake(self) -> Lake:
        """Client of the Delta tables; opening it checks their last commits."""
        lake = Lake(self.home / "lake")
        lake.check_tail()
        return lake

    @property
    def damaged_lake(self) -> Lake:
        """Client of the Delta tables for repairs: opening it checks nothing."""
        return Lake(self.home / "lake")

    @property
    def damaged_ledger(self) -> Ledger:
        """Ledger for repairs: opening it compares nothing."""
        return Ledger(self.home / "ledger.jsonl")

    def pinning(self) -> AbstractContextManager[None]:
        """Return a lock for the look-up of a version and the write of its pin.

        While it is held, `gc` deletes no version. It waits until a `gc` in progress has ended its
        deletions.
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
            known = f"the newest are {newest}" if newest else "there are none yet"
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
