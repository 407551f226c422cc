"""What is wrong with a config, in one sentence a person can act on.

Promises: the sentence names the field as it is written in the file, the value, and what is allowed
there; of several faults it tells the first, and how many more there are.
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
    """Return pydantic's first problem as one sentence: origin, field, value, what is allowed.

    Parameters
    ----------
    given
        The values that were refused, nested as they were written.
    root
        The model of the whole config.
    origin
        Dotted field -> where its value came from.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    place, holder = _place(first["loc"], given, root)
    field = ".".join(str(part) for part in place)
    where = origin(field)
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""

    def refused(id: str, sentence: str) -> ConfigError:
        return ConfigError(id, sentence + others)

    match first["type"]:
        case "union_tag_not_found":
            families = ", ".join(map(repr, FAMILIES))
            return refused(
                "config.unknown_family", f"{where}: {field} has no family. Allowed: {families}"
            )
        case "union_tag_invalid":
            allowed = first["ctx"]["expected_tags"]
            return refused(
                "config.unknown_family",
                f"{where}: unknown {field}.family = {first['ctx']['tag']!r}. Allowed: {allowed}",
            )
        case "extra_forbidden":
            return refused(
                "config.unknown_setting", f"{where}: unknown setting {field}. {_allowed(holder)}"
            )
        case "string_pattern_mismatch" if place[-1] == "[key]":
            return refused(
                "config.recipe_name",
                f"{where}: {place[1]!r} is not a name of a recipe. Allowed: letters, digits, "
                "_ . @ and -",
            )
        case "model_type" | "model_attributes_type":
            message = f"write it as a table, [{field}]"
        case _:
            message = first["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
    value = repr(first["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    about = field if isinstance(first["input"], Mapping) else f"{field} = {value}"
    return refused("config.invalid_value", f"{where}: {about}: {message}")


def _place(
    location: tuple[int | str, ...], given: Tree, root: type[BaseModel]
) -> tuple[tuple[int | str, ...], Any]:
    """Return where in the file pydantic's location is, and the model that holds its last field.."""
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
        elif getattr(model, "__args__", ()):  # a name chosen by the user
            model = model.__args__[-1]
        here = here.get(part) if isinstance(here, Mapping) else None
        if isinstance(here, Mapping) and here.get("family") in FAMILIES:
            model = FAMILIES[here["family"]]
    return tuple(place), holder


def _fields(model: Any) -> Tree:
    return {f.alias or n: f for n, f in getattr(model, "model_fields", {}).items()}


def _allowed(model: Any) -> str:
    """Name the fields of the model in which an unknown one was written."""
    names = ", ".join(_fields(model))
    return f"Allowed: {names}" if names else "See `nightjar config show`"
