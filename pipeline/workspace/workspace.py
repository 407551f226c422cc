"""The workspace: one folder that holds everything Nightjar knows, and the doors to it.

Promises: a folder without `nightjar.toml` is no workspace and is refused by name, never filled by
accident; `init` changes nothing in a workspace that is there already; doors are opened when they
are first used, so a command pays only for what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from pipeline.errors import ConfigError, StorageError
from pipeline.stores.lake import Lake
from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Run, Runs, is_run_id
from pipeline.stores.vault import Vault, load_key, make_key, parse_key
from pipeline.workspace.config import TEMPLATE, Composed, Config, compose

CONFIG_FILE = "nightjar.toml"
LEARNT_FROM = ("events", "items", "users")
"""Tables that recipes learn from."""
PINS = "pins"
"""The lock under which versions are pinned (shared), or those that nobody pinned go."""
_KEY_VARIABLE = "NIGHTJAR_VAULT_KEY"


@dataclass(frozen=True)
class Workspace:
    """A workspace's home and its composed config."""

    home: Path
    composed: Composed

    @classmethod
    def open(cls, home: Path) -> Workspace:
        """Open the workspace at `home`; raises `ConfigError` where there is none."""
        home = home.resolve()
        if not (home / CONFIG_FILE).is_file():
            raise ConfigError(
                "workspace.not_found",
                f"{home} is no Nightjar workspace: it has no {CONFIG_FILE}; "
                f"make one with `nightjar init {home}`",
            )
        return cls(home, compose(home / CONFIG_FILE, os.environ))

    @classmethod
    def init(cls, home: Path, config: str = TEMPLATE) -> Workspace:
        """Make a workspace, or open the one that is there; the config file comes last."""
        home = home.resolve()
        if (home / CONFIG_FILE).exists():
            return cls.open(home)
        own = {"landing", "secrets", "runs", f"{CONFIG_FILE}.new"}  # of an `init` that was killed
        strangers = sorted({p.name for p in home.iterdir()} - own) if home.is_dir() else []
        if strangers:
            raise ConfigError(
                "workspace.not_empty",
                f"{home} is not empty and no workspace (it holds {', '.join(strangers[:3])}); "
                "name an empty or a new folder",
            )
        try:
            for table in ("events", "items", "users"):
                (home / "landing" / table).mkdir(parents=True, exist_ok=True)
            (home / "runs").mkdir(exist_ok=True)
            (home / "secrets").mkdir(mode=0o700, exist_ok=True)
            if not (home / "secrets" / "vault.key").exists():
                make_key(home / "secrets" / "vault.key")
            new = home / f"{CONFIG_FILE}.new"
            new.write_text(config, encoding="utf-8")
            new.rename(home / CONFIG_FILE)
        except OSError as error:
            raise StorageError(
                "workspace.cannot_write", f"cannot write the workspace {home}: {error.strerror}"
            ) from error
        return cls.open(home)

    @property
    def config(self) -> Config:
        """The composed config."""
        return self.composed.config

    @cached_property
    def lake(self) -> Lake:
        """The Delta tables, their last commits checked."""
        lake = Lake(self.home / "lake")
        lake.check_tail()
        return lake

    def pinning(self) -> AbstractContextManager[None]:
        """Hold off upkeep from looking up a version until it is written down as pinned.

        Who pins waits while upkeep takes versions away, which is soon over.
        """
        return self.lake.lock(PINS, wait=True, shared=True)

    def current_versions(self, *tables: str) -> dict[str, int | None]:
        """Return the newest version of each table, by default of those that runs learn from."""
        return {table: self.lake.version(table) for table in tables or LEARNT_FROM}

    def read_pinned(
        self,
        versions: Mapping[str, int | None],
        table: str,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Read a table at its pinned version; empty if it did not exist then."""
        version = versions[table]
        if version is None:
            return self.lake.empty(table, columns)
        return self.lake.read(table, version=version, columns=columns, where=where)

    @cached_property
    def runs(self) -> Runs:
        """The files of all runs."""
        return Runs(self.home / "runs")

    @cached_property
    def ledger(self) -> Ledger:
        """Decisions and swaps."""
        return Ledger(self.home / "ledger.jsonl")

    @cached_property
    def vault(self) -> Vault:
        """Pseudonyms; the key comes from the environment or the workspace's key file."""
        given = os.environ.get(_KEY_VARIABLE)
        key = parse_key(given) if given else load_key(self.home / "secrets" / "vault.key")
        return Vault(self.home / "vault.db", key)

    def run(self, run_id: str) -> Run:
        """Return a run that was started; raises `ConfigError` for one that was not."""
        run = self.runs.open(run_id) if is_run_id(run_id) else None
        if run is None or run.committed("snapshot") is None:
            known = [r.run_id for r in self.runs.starting_with("")][-3:]
            hint = f"; the newest are {', '.join(known)}" if known else ""
            raise ConfigError("run.unknown", f"there is no run {run_id} in {self.home}{hint}")
        return run

    @property
    def tracking_uri(self) -> str:
        """Where MLflow's runs go: the configured server, else a database in the workspace."""
        return self.config.registry.tracking_uri or f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's database in the workspace, which is used where no server is configured."""
        return self.home / "mlflow" / "mlflow.db"
