"""Errors of a config, as one sentence.

Guarantees: the sentence names the field as the file writes it, the value and the allowed values; if
there are several faults, it describes the first and counts the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError, nearest
from pipeline.models.families import FAMILIES

FieldOrigin = Callable[[str], str]
Tree: TypeAlias = dict[str, Any]
"""Nested plain values of a config, as TOML and JSON have them."""
# Any @ after the scheme: an unescaped slash in a password hides it from a parser of URIs. The path
# of a database may contain one.
_LOGIN: Final = re.compile(r"\b(?!sqlite:)[a-z][a-z0-9+.-]*://.*@", re.IGNORECASE | re.DOTALL)
# Names of parameters under which databases, object stores and HTTP services accept a secret.
_SECRET: Final = re.compile(
    r"://.*[?&;#]([\w.-]*(passw|passphrase|pwd|secret|token|credential|signature"
    r"|api[_-]?key|access[_-]?key)[\w.-]*|auth|jwt|key|pass|pw|sas|sig)=",
    re.IGNORECASE | re.DOTALL,
)


def refuse_logins(values: Tree, origin: FieldOrigin) -> None:
    """Raise if a value is a URI with a user, a password or another secret; it is not shown.

    Each run keeps a copy of the config, and `nightjar config show` prints it.

    Parameters
    ----------
    values
        Values by dotted field, of known and unknown fields.
    origin
        Dotted field -> origin of its value.

    Raises
    ------
    ConfigError
        `config.login_in_uri`.
    """
    for field, value in values.items():
        text = unquote(str(value))
        if _LOGIN.search(text) or _SECRET.search(text):
            raise ConfigError(
                "config.login_in_uri",
                f"{origin(field)}: {field} must not be a URI with a user, password or other "
                "secret; remove it, and for MLflow set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD",
            )


def config_error(
    error: ValidationError, given: Tree, root: type[BaseModel], origin: FieldOrigin
) -> ConfigError:
    """Return pydantic's first fault as one sentence.

    Parameters
    ----------
    error
        Has one or more faults.
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
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    families = ", ".join(map(repr, FAMILIES))

    def refused(id: str, sentence: str) -> ConfigError:
        return ConfigError(id, f"{where}: {sentence}{others}")

    match first["type"]:
        case "union_tag_not_found":
            return refused(
                "config.unknown_family", f"{field} has no family; write family = one of: {families}"
            )
        case "union_tag_invalid":
            tag = first["ctx"]["tag"]
            return refused(
                "config.unknown_family",
                f"unknown family {tag!r} in {field}. Allowed: {families}{nearest(tag, FAMILIES)}",
            )
        case "extra_forbidden":
            names = _fields(holder)
            allowed = ", ".join(names) or "see `nightjar config show`"
            hint = nearest(str(place[-1]), names)
            return refused(
                "config.unknown_setting", f"unknown setting {field}. Allowed: {allowed}{hint}"
            )
        # "[key]" is the last part of pydantic's location for a wrong key of a mapping.
        case "string_pattern_mismatch" if place[-1] == "[key]":
            name = place[1]
            return refused(
                "config.recipe_name",
                f"{name!r} is not a name of a recipe. Allowed: letters, digits, _ . @ and -",
            )
        case "model_type" | "model_attributes_type":
            message = f"write it as a table, [{field}]"
        case _:
            message = first["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
    # A value with an @ may be a URI with a password before it, however it is spelt.
    value = "'***'" if str(first["input"]).rfind("@") > 0 else repr(first["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    # The value of a table would be a dump of all its fields, so it is left out.
    setting = field if isinstance(first["input"], Mapping) else f"{field} = {value}"
    return refused("config.invalid_value", f"{setting}: {message}")


def _place(
    location: tuple[int | str, ...], given: Tree, root: type[BaseModel]
) -> tuple[tuple[int | str, ...], Any]:
    """Return the path of a field in the file, and the model that has the field."""
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
