"""The one composition of all settings: defaults -> `nightjar.toml` -> environment.

Promises: a field that does not exist, or a value out of its bounds, is refused with the field, the
value and what is allowed; nothing is half applied; where a value came from can be asked
(`Composed.origins`). A run keeps its own copy, and later steps read that copy.
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
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.base import Frozen
from pipeline.data.clean import CleanConfig
from pipeline.data.features import FeaturesConfig
from pipeline.data.ingest import IngestConfig
from pipeline.data.sources import Source
from pipeline.data.split import SplitConfig
from pipeline.data.validate import ValidateConfig
from pipeline.data.windows import WindowConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.gate import GateConfig
from pipeline.models.contract import Recipe
from pipeline.models.families import FAMILIES, AnyRecipe, default_recipes
from pipeline.monitoring.attribution import AttributionConfig
from pipeline.monitoring.policy import PolicyConfig
from pipeline.monitoring.verdicts import DriftConfig
from pipeline.serving.publish import PublishConfig
from pipeline.serving.recommend import RecommendConfig
from pipeline.stores.retention import GcConfig
from pipeline.workspace.config_errors import Tree, config_error
from pipeline.workspace.memory import TrainConfig

PREFIX = "NIGHTJAR__"
RecipeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
"""A recipe's name is a folder of the run, a run in MLflow, a word in sentences."""

TEMPLATE = """\
# The settings of this workspace. `nightjar config show` prints every field, what it means and
# where its value comes from; what is not written here keeps its default.

# Files that wait in landing/events/. A source names the columns of a file that are called
# something else there, and the zone of times that carry none:
#
# [sources.orders]
# table = "events"
# path = "orders-*.csv"
# columns = { user_id = "customer", item_id = "sku", timestamp = "ordered_at" }
# constants = { kind = "purchase" }
# timezone = "Europe/Berlin"

[split]
task = "auto"    # "repeat" lets lists hold what a user had before, "discovery" does not
"""


class RegistryConfig(Frozen):
    """Where versions are shown to people."""

    tracking_uri: str | None = Field(
        default=None,
        pattern=r"^(https?|sqlite)://.+",
        description="MLflow's address; without one, a database inside the workspace.",
    )
    experiment: str = Field(default="nightjar", min_length=1, description="MLflow experiment.")
    model_name: str = Field(
        default="nightjar", min_length=1, description="Name of the registered model."
    )


def _default_sources() -> dict[str, Source]:
    return {
        table: Source.model_validate({"table": table, "path": "*"})
        for table in ("events", "items", "users")
    }


class Config(Frozen):
    """All settings of a workspace."""

    sources: dict[str, Source] = Field(
        default_factory=_default_sources, description="Files that wait to be read, by name."
    )
    ingest: IngestConfig = Field(default=IngestConfig(), description="Reading files.")
    validate_: ValidateConfig = Field(
        default=ValidateConfig(), alias="validate", description="Judging a night's data."
    )
    clean: CleanConfig = Field(default=CleanConfig(), description="Missing values, outliers.")
    features: FeaturesConfig = Field(default=FeaturesConfig(), description="Weights of events.")
    split: SplitConfig = Field(default=SplitConfig(), description="Training window and holdout.")
    recipes: dict[RecipeName, AnyRecipe] = Field(
        default_factory=default_recipes,
        description="Recipes that compete, by name; the baselines always do.",
    )
    train: TrainConfig = Field(default=TrainConfig(), description="What training may take.")
    gate: GateConfig = Field(default=GateConfig(), description="What a promotion needs.")
    recommend: RecommendConfig = Field(default=RecommendConfig(), description="Lists.")
    publish: PublishConfig = Field(default=PublishConfig(), description="Putting lists live.")
    attribution: AttributionConfig = Field(
        default=AttributionConfig(), description="Responses to lists."
    )
    drift: DriftConfig = Field(default=DriftConfig(), description="When data have moved.")
    policy: PolicyConfig = Field(default=PolicyConfig(), description="When a retrain is wanted.")
    registry: RegistryConfig = Field(default=RegistryConfig(), description="MLflow.")
    gc: GcConfig = Field(default=GcConfig(), description="How long stores keep things.")

    @property
    def windows(self) -> WindowConfig:
        """The settings that decide what a window holds."""
        return WindowConfig(clean=self.clean, features=self.features, split=self.split)


@dataclass(frozen=True)
class Composed:
    """The config and, for each dotted field, where its value came from."""

    config: Config
    origins: Mapping[str, str]


def compose(file: Path, environment: Mapping[str, str]) -> Composed:
    """Compose the config of a workspace; raises `ConfigError` in one sentence."""
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.not_toml", f"{file.name} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError("storage.cannot_read", f"cannot read {file}: {error.strerror}") from error
    origins = dict.fromkeys(flat(written), file.name)
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX):
            keys = name.removeprefix(PREFIX).lower().split("__")
            _put(written, keys, _literal(text), name)
            origins[".".join(keys)] = f"environment {name}"
    return Composed(_config_from(written, file.name, origins), origins)


def _config_from(written: Tree, where: str, origins: Mapping[str, str]) -> Config:
    """Build the config; errors name the origin of a field, `where` for a field without one."""
    given = dict(written)
    if isinstance(given.get("recipes"), dict):
        known: dict[str, Tree] = {family: {"family": family} for family in FAMILIES}
        known |= {n: r.model_dump(mode="json") for n, r in default_recipes().items()}
        named = {
            name: {**known.get(name, {}), **recipe}
            if isinstance(recipe, dict) and "family" not in recipe
            else recipe
            for name, recipe in given["recipes"].items()
        }
        given["recipes"] = {**_baselines(), **named}
    if isinstance(given.get("sources"), dict):
        tables = {s.get("table") for s in given["sources"].values() if isinstance(s, dict)}
        defaults = {n: s for n, s in _default_sources().items() if n not in tables}
        given["sources"] = {**defaults, **given["sources"]}

    origin = partial(_origin, origins=origins, default=where)
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
    if config.gate.min_users > config.split.min_users:
        raise ConfigError(
            "config.gate_min_users",
            f"{where}: gate.min_users = {config.gate.min_users}: the holdout only grows until "
            f"split.min_users = {config.split.min_users} people can be judged; raise that, too",
        )
    if config.gate.fallback not in _baselines():
        raise ConfigError(
            "config.gate_fallback",
            f"{origin('gate.fallback')}: gate.fallback = {config.gate.fallback!r} is not a "
            f"baseline; write one of {', '.join(_baselines())}",
        )
    return config


def dump(config: Config) -> Tree:
    """Return the config as plain JSON, which `load` takes back."""
    return config.model_dump(mode="json", by_alias=True)


def load(dumped: Tree) -> Config:
    """Rebuild a config that `dump` wrote; raises `ConfigError` for one of another version."""
    try:
        return Config.model_validate(dumped)
    except ValidationError as error:
        where = "the settings kept with it, by another version of Nightjar"
        raise config_error(error, dumped, Config, lambda _: where) from error


def flat(tree: Mapping[str, object], prefix: str = "") -> Tree:
    """Return the leaves of nested mappings by their dotted names: ``parts.als.alpha``."""
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


@dataclass(frozen=True)
class Setting:
    """One field as `config show` prints it."""

    path: str
    value: Any
    description: str
    origin: str


def settings(composed: Composed) -> Iterator[Setting]:
    """Walk every field of the config, in order."""
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
            plain = model.model_dump(mode="json", by_alias=True)[field.alias or name]
            yield Setting(path, plain, field.description or "", _origin(path, origins))


def _origin(path: str, origins: Mapping[str, str], default: str = "default") -> str:
    """Return the origin of a field: its own, that of a part above it, of one below, `default`."""
    parts = path.split(".")
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
        raise ConfigError(
            "config.environment_name", f"{name} names no field; write {PREFIX}SECTION__FIELD"
        )
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(
                "config.environment_name", f"{name} names a field below {key}, which has none"
            )
    values[last] = value


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
