"""Composition of all settings: defaults, then `nightjar.toml`, then the environment.

A run stores a copy of its settings, and its later steps read that copy.

Guarantees:

* An unknown field or a value out of bounds raises an error with the field, the value and the
  allowed ones; no setting takes effect then.
* `Composed.origins` has the origin of every field that is set.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from pipeline.base import Frozen
from pipeline.data.clean.policies import CleanConfig
from pipeline.data.features import FeaturesConfig
from pipeline.data.ingest.config import IngestConfig, PrivacyConfig
from pipeline.data.sources.config import Source
from pipeline.data.split import SplitConfig
from pipeline.data.validate.judge import ValidateConfig
from pipeline.data.windows import WindowConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.gate import GateConfig
from pipeline.models.contract import Recipe
from pipeline.models.families import FAMILIES, AnyRecipe, default_recipes
from pipeline.monitoring.attribution import AttributionConfig
from pipeline.monitoring.policy import PolicyConfig, ScheduleConfig
from pipeline.monitoring.verdicts import DriftConfig
from pipeline.serving.publish import PublishConfig
from pipeline.serving.recommend import RecommendConfig
from pipeline.stores.disk import fault_text
from pipeline.stores.locks import LocksConfig
from pipeline.stores.retention import GcConfig
from pipeline.workspace.config_errors import Tree, config_error, refuse_logins
from pipeline.workspace.memory import TrainConfig

PREFIX = "NIGHTJAR__"
CATCH_UP_BLOCKS = 4
"""Default of `gate.catch_up_blocks` where the retrain policy starts runs."""
RecipeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
"""A recipe's name, which is also a folder of the run and a run in MLflow."""

TEMPLATE = """\
# Settings of this workspace. `nightjar config show` prints every field with its description,
# value and origin. Fields that are not set here keep their defaults.

# Sources describe the files in landing/events/, items/ and users/. A source maps columns that have
# other names in the file, and sets the time zone of times without one:
#
# [sources.orders]
# table = "events"
# path = "orders-*.csv"
# columns = { user_id = "customer", item_id = "sku", timestamp = "ordered_at" }
# constants = { kind = "purchase" }
# timezone = "Europe/Berlin"

[split]
task = "auto"    # "repeat": lists may include items that a user had before; "discovery": not
"""


class RegistryConfig(Frozen):
    """MLflow, which shows runs and model versions."""

    tracking_uri: str | None = Field(
        default=None,
        pattern=r"^(https?://.|sqlite:////.)",
        description="Address of the MLflow server or database. Without a value, MLflow uses a "
        "database in the workspace.",
    )

    experiment: str = Field(
        default="nightjar",
        min_length=1,
        description="Name of the MLflow experiment of nightly runs; studies add '-tuning' to it.",
    )
    model_name: str = Field(
        default="nightjar", min_length=1, description="Name of the registered model in MLflow."
    )


KnownBy = Literal["as_of", "now"]


class SnapshotConfig(Frozen):
    """Data that a run with an earlier as-of sees."""

    known_by: KnownBy | None = Field(
        default=None,
        description="`as_of`: nothing that was ingested after the as-of, and the table versions of "
        "items and users of that instant; `now`: everything before the as-of that the lake holds "
        "now. By default `as_of` in a backtest, else `now`.",
    )


class WorkspaceConfig(Frozen):
    """Users of the machine who have access to the workspace."""

    group: str | None = Field(
        default=None,
        min_length=1,
        description="Group whose members may read the workspace and deliver files, set by "
        "`nightjar init --group`. Without a value, only the owner has access.",
    )


def _default_sources() -> dict[str, Source]:
    return {
        table: Source.model_validate({"table": table, "path": "*"})
        for table in ("events", "items", "users")
    }


class Config(Frozen):
    """All settings of a workspace."""

    sources: dict[str, Source] = Field(
        default_factory=_default_sources, description="Sources of files to ingest, by name."
    )
    ingest: IngestConfig = Field(default=IngestConfig(), description="Ingest of files.")
    privacy: PrivacyConfig = Field(
        default=PrivacyConfig(), description="Stored form of delivered values."
    )
    validate_: ValidateConfig = Field(
        default=ValidateConfig(), alias="validate", description="Checks of a run's data."
    )
    clean: CleanConfig = Field(default=CleanConfig(), description="Missing values and outliers.")
    features: FeaturesConfig = Field(default=FeaturesConfig(), description="Event weights.")
    split: SplitConfig = Field(default=SplitConfig(), description="Training window and holdout.")
    recipes: dict[RecipeName, AnyRecipe] = Field(
        default_factory=default_recipes,
        description="Recipes that are trained and compared, by name; the baselines always are.",
    )
    snapshot: SnapshotConfig = Field(default=SnapshotConfig(), description="Data that a run sees.")
    train: TrainConfig = Field(default=TrainConfig(), description="Limits of a training.")
    schedule: ScheduleConfig = Field(
        default=ScheduleConfig(), description="Start of nightly runs in Airflow."
    )
    gate: GateConfig = Field(default=GateConfig(), description="Rules of a promotion.")
    recommend: RecommendConfig = Field(
        default=RecommendConfig(), description="Recommendation lists."
    )
    publish: PublishConfig = Field(default=PublishConfig(), description="Publication of lists.")
    attribution: AttributionConfig = Field(
        default=AttributionConfig(), description="Attribution of events to lists."
    )
    drift: DriftConfig = Field(default=DriftConfig(), description="Detection of drift.")
    policy: PolicyConfig = Field(default=PolicyConfig(), description="Requests for a retrain.")
    registry: RegistryConfig = Field(default=RegistryConfig(), description="MLflow.")
    gc: GcConfig = Field(default=GcConfig(), description="Retention of data, runs and files.")
    locks: LocksConfig = Field(
        default=LocksConfig(), description="Waiting for other processes of the workspace."
    )
    workspace: WorkspaceConfig = Field(
        default=WorkspaceConfig(), description="Access to the workspace."
    )

    @property
    def windows(self) -> WindowConfig:
        """Settings that decide the content of a window."""
        return WindowConfig(clean=self.clean, features=self.features, split=self.split)


@dataclass(frozen=True)
class Composed:
    """The config, and the origin of each set field by its dotted name."""

    config: Config
    origins: Mapping[str, str]


def compose(file: Path, environment: Mapping[str, str]) -> Composed:
    """Compose the config of a workspace.

    Parameters
    ----------
    file
        ``nightjar.toml``.
    environment
        Variables ``NIGHTJAR__SECTION__FIELD`` override the file; values are TOML, else text.

    Raises
    ------
    ConfigError
        `config.*`, or `storage.cannot_read`.
    """
    try:
        return _composed(file, environment)
    except RecursionError:
        raise ConfigError(
            "config.too_deep",
            f"{file.name}, or a variable that begins with {PREFIX}, is nested too deep; correct it",
        ) from None


def _composed(file: Path, environment: Mapping[str, str]) -> Composed:
    try:
        # Editors of Windows write a byte order mark, which TOML has no place for.
        written = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.not_toml", f"{file.name} is not valid TOML: {error}; correct the file"
        ) from error
    except OSError as error:
        raise ConfigError(
            "storage.cannot_read", f"cannot read {file}: {fault_text(error)}"
        ) from error
    origins = dict.fromkeys(flat(written), file.name)
    # Sorted, so that of two variables for one field the same one wins on every machine.
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX):
            keys = name.removeprefix(PREFIX).lower().split("__")
            _put(written, keys, _literal(text), name)
            origins[".".join(keys)] = f"environment {name}"
    return Composed(_config_from(written, file.name, origins), origins)


def _config_from(written: Tree, where: str, origins: Mapping[str, str]) -> Config:
    """Build the config; errors name the origin of a field, else the file `where`."""
    given = dict(written)
    if isinstance(given.get("recipes"), dict):
        # Families first: a default recipe of the same name also has fields of its own.
        presets: dict[str, Tree] = {family: {"family": family} for family in FAMILIES}
        presets |= {n: r.model_dump(mode="json") for n, r in default_recipes().items()}
        # A recipe named like a default one or a family may leave its family out.
        named = {
            name: {**presets.get(name, {}), **recipe}
            if isinstance(recipe, dict) and "family" not in recipe
            else recipe
            for name, recipe in given["recipes"].items()
        }
        # Every run compares with the baselines, so naming recipes does not remove them.
        given["recipes"] = {**_baselines(), **named}
    if isinstance(given.get("sources"), dict):
        # A source of one table replaces the default source of that table only.
        tables = {
            s.get("table", "events") for s in given["sources"].values() if isinstance(s, dict)
        }
        defaults = {n: s for n, s in _default_sources().items() if n not in tables}
        given["sources"] = {**defaults, **given["sources"]}

    origin = partial(_origin, origins=origins, default=where)
    refuse_logins(flat(given), origin)
    try:
        config = Config.model_validate(given)
    except ValidationError as error:
        raise config_error(error, given, Config, origin) from error
    for name, baseline in _baselines().items():
        family = config.recipes[name].family
        if family != baseline.family:
            raise ConfigError(
                "config.baseline_family",
                f"{where}: recipes.{name}.family = {family!r}: {name} is a baseline of family "
                f"{baseline.family!r}; give this recipe another name",
            )
    # The gate would wait for users that the holdout never grows to.
    if config.gate.min_users > config.split.min_users:
        raise ConfigError(
            "config.gate_min_users",
            f"{where}: gate.min_users = {config.gate.min_users} exceeds split.min_users = "
            f"{config.split.min_users}, at which the holdout stops growing; raise split.min_users",
        )
    # Without a weight the first event of the kind would end a night.
    for kind in config.ingest.kinds:
        if kind not in config.features.weights:
            raise ConfigError(
                "config.kind_without_weight",
                f"{origin('ingest.kinds')}: ingest.kinds has {kind!r}, which has no weight; add "
                f"{kind} = 1.0 or another weight to features.weights",
            )
    if config.gate.fallback not in _baselines():
        file, allowed = origin("gate.fallback"), ", ".join(_baselines())
        raise ConfigError(
            "config.gate_fallback",
            f"{file}: gate.fallback = {config.gate.fallback!r} is not a baseline; write one of "
            f"{allowed}",
        )
    return _with_catch_up(config)


def _with_catch_up(config: Config) -> Config:
    """Set the default of `gate.catch_up_blocks` that belongs to the schedule's mode."""
    gate = config.gate
    if config.schedule.mode == "nightly" or "catch_up_blocks" in gate.model_fields_set:
        return config
    gate = gate.model_copy(update={"catch_up_blocks": CATCH_UP_BLOCKS})
    return config.model_copy(update={"gate": gate})


def dump(config: Config) -> Tree:
    """Return the config as plain JSON; `load` is the inverse."""
    return config.model_dump(mode="json", by_alias=True)


def load(dumped: Tree) -> Config:
    """Rebuild a config from `dump`; `config.*` for one that another version wrote."""
    try:
        return Config.model_validate(dumped)
    except ValidationError as error:
        where = "stored settings of another version of Nightjar"
        raise config_error(error, dumped, Config, lambda _: where) from error


def flat(tree: Mapping[str, object], prefix: str = "") -> Tree:
    """Return the leaves of nested mappings by their dotted names: ``parts.als.alpha``.

    Parameters
    ----------
    prefix
        Begin of all names.
    """
    leaves: Tree = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def short_digest(facts: object) -> str:
    """Return the first 8 hex digits of the sha256 of plain JSON, keys sorted."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def window_digest(config: Config) -> str:
    """Return a digest of the event weights and of cleaning, by which figures are comparable."""
    dumped = dump(config)
    return short_digest([dumped["features"], dumped["clean"]])


@dataclass(frozen=True)
class Setting:
    """One field, as `nightjar config show` prints it."""

    path: str
    value: Any
    description: str
    origin: str


def settings(composed: Composed) -> Iterator[Setting]:
    """Yield every field of the config in order."""
    yield from _walk(composed.config, "", composed.origins)


def _walk(model: BaseModel, prefix: str, origins: Mapping[str, str]) -> Iterator[Setting]:
    for name, field in type(model).model_fields.items():
        path = f"{prefix}{field.alias or name}"
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{path}.", origins)
        elif isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values()):
            for key, entry in value.items():
                yield from _walk(entry, f"{path}.{key}.", origins)
        else:
            # As JSON: the value is shown as the file would write it.
            plain = model.model_dump(mode="json", by_alias=True)[field.alias or name]
            yield Setting(path, plain, field.description or "", _origin(path, origins))


def _origin(path: str, origins: Mapping[str, str], default: str = "default") -> str:
    """Return the origin of a field, of its nearest enclosing table, or of a field inside it."""
    # Without any of these, `default`.
    parts = path.split(".")
    # A file may set a table as a whole, and the environment one field below it.
    above = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    below = (key for key in origins if key.startswith(f"{path}."))
    return next((origins[key] for key in chain(above, below) if key in origins), default)


def _baselines() -> dict[str, Recipe]:
    return {
        name: recipe
        for name, recipe in default_recipes().items()
        if recipe.capabilities.baseline is not None
    }


def _put(values: Tree, keys: list[str], value: Any, name: str) -> None:
    *path, last = keys
    if not path or not all(keys):
        section = next(filter(None, keys), "section").upper()
        raise ConfigError(
            "config.environment_name", f"{name} sets no field; write {PREFIX}{section}__FIELD"
        )
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(
                "config.environment_name",
                f"{name} names a field of {key}, which is a single value; write "
                f"{PREFIX}SECTION__FIELD",
            )
    values[last] = value


def _literal(text: str) -> Any:
    try:
        # Numbers, lists and tables need TOML; a text that is not TOML is taken as it is, unquoted.
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):  # the latter: nested too deep
        return text
