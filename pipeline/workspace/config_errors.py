"""Errors of a config, as one sentence.

Guarantees: the sentence names the field as the file writes it, the value and the allowed ones; of
several faults it has the first and the number of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError
from pipeline.models.families import FAMILIES

FieldOrigin = Callable[[str], str]
Tree: TypeAlias = dict[str, Any]
"""Nested plain values of a config, as TOML and JSON have them."""


def config_error(
    error: ValidationError, given: Tree, root: type[BaseModel], origin: FieldOrigin
) -> ConfigError:
    """Return pydantic's first fault as one sentence.

    Parameters
    ----------
    given
        The invalid values, nested as in the file.
    root
        The model of the whole config.
    origin
        Dotted field -> origin of its value.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    place, holder = _place(first["loc"], given, root)
    field = ".".join(str(part) for part in place)
    where = origin(field)
    id, families = "config.invalid_value", ", ".join(map(repr, FAMILIES))
    if first["type"] == "union_tag_not_found":
        id = "config.unknown_family"
        sentence = f"{where}: {field} has no family. Allowed: {families}"
    elif first["type"] == "union_tag_invalid":
        id, tag = "config.unknown_family", first["ctx"]["tag"]
        sentence = f"{where}: unknown {field}.family = {tag!r}. Allowed: {families}"
    # "[key]" is the last part of pydantic's location for a wrong key of a mapping.
    elif first["type"] == "string_pattern_mismatch" and place[-1] == "[key]":
        id, allowed = "config.recipe_name", "letters, digits, _ . @ and -"
        sentence = f"{where}: {place[1]!r} is not a name of a recipe. Allowed: {allowed}"
    elif first["type"] == "extra_forbidden":
        id = "config.unknown_setting"
        allowed = ", ".join(_fields(holder)) or "see `nightjar config show`"
        sentence = f"{where}: unknown setting {field}. Allowed: {allowed}"
    else:
        shown = repr(first["input"])
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] in ("model_type", "model_attributes_type"):
            message = f"write it as a table, [{field}]"
        message = message[:1].lower() + message[1:]
        table = isinstance(first["input"], Mapping)  # the fault concerns several of its fields
        sentence = f"{where}: {field}{'' if table else f' = {shown}'}: {message}"
    more = len(problems) - 1
    return ConfigError(id, sentence + (f" (and {more} more)" if more else ""))


def _place(
    location: tuple[int | str, ...], given: Tree, root: type[BaseModel]
) -> tuple[tuple[int | str, ...], Any]:
    """Return pydantic's location as a place in the file, and the model of its last field."""
    place: list[int | str] = []
    model: Any = root
    holder: Any = root
    here: Any = given
    for part in location:
        place.append(part)
        holder = model
        fields = _fields(model)
        if part in fields:
            model = fields[str(part)].annotation
        elif getattr(model, "__args__", ()):  # a mapping, whose keys the user chooses
            model = model.__args__[-1]
        here = here.get(part) if isinstance(here, Mapping) else None
        # A union of families has no fields of its own: the tag selects the model.
        if isinstance(here, Mapping) and here.get("family") in FAMILIES:
            model = FAMILIES[here["family"]]
    return tuple(place), holder


def _fields(model: Any) -> Tree:
    return {f.alias or n: f for n, f in getattr(model, "model_fields", {}).items()}
