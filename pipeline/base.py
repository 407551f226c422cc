"""The ground that everything stands on: frozen config, instants in UTC, half-open intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NewType

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    TypeAdapter,
)
from pydantic_core import CoreSchema, core_schema

from pipeline.errors import ConfigError

Progress = Callable[[str], None]
"""Told, in a few words, what a long task is doing. Handed in; never looked up."""


def silent(_: str) -> None:
    """Progress for callers who want none."""


class Frozen(BaseModel):
    """Base of every config: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def to_utc(instant: datetime) -> datetime:
    """Return `instant` in UTC; a naive one raises `ConfigError`."""
    if instant.tzinfo is None:
        raise ConfigError(
            "instant.naive",
            f"{instant.isoformat()} has no time zone; write it as {instant.isoformat()}Z",
        )
    return instant.astimezone(UTC)


def parse_instant(text: str) -> datetime:
    """Read an ISO 8601 instant with a zone, such as ``2017-12-01T09:00:00Z``."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "instant.invalid", f"{text!r} is no instant; write it as 2017-12-01T09:00:00Z"
        ) from None
    return to_utc(instant)


def format_instant(instant: datetime) -> str:
    """Write an instant as ``2017-12-01T09:00:00Z`` (microseconds only if there are any)."""
    return to_utc(instant).isoformat().replace("+00:00", "Z")


def to_the_second(instant: datetime) -> str:
    """Write an instant for a sentence: ``2017-12-01T09:00:00Z``, what is below a second cut off."""
    return format_instant(instant.replace(microsecond=0))


def compact_instant(instant: datetime) -> str:
    """Write an instant for a file name: ``20171201T090000Z``."""
    return to_utc(instant).strftime("%Y%m%dT%H%M%SZ")


Instant = Annotated[
    datetime,
    AfterValidator(to_utc),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
]
"""An instant in a file: UTC, written by `format_instant`; a naive one raises `ConfigError`."""

AsOf = NewType("AsOf", datetime)
"""The instant that bounds all data of a run, in UTC; `as_of` makes one at the edge."""


def as_of(value: datetime | str) -> AsOf:
    """Return an instant as `AsOf`; raises `ConfigError` for a naive one or another text."""
    return AsOf(parse_instant(value) if isinstance(value, str) else to_utc(value))


def plain(value: object) -> Any:
    """Return a dataclass or model as plain JSON values, the shape of every ``--json``.

    An object whose JSON is not its fields has a method `plain`.
    """
    if hasattr(value, "plain"):
        return value.plain()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return TypeAdapter(type(value)).dump_python(value, mode="json", by_alias=True)


@dataclass(frozen=True)
class Interval:
    """Half-open ``[start, end)`` in UTC; in a file, the pair of both instants."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", to_utc(self.start))
        object.__setattr__(self, "end", to_utc(self.end))
        if self.end < self.start:
            raise ConfigError(
                "interval.reversed",
                f"the interval {self} ends before it starts",
            )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Interval], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        pair = handler.generate_schema(tuple[Instant, Instant])
        return core_schema.no_info_wrap_validator_function(
            lambda value, read: value if isinstance(value, cls) else cls(*read(value)),
            pair,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda span: (span.start, span.end), return_schema=pair, when_used="json"
            ),
        )

    @property
    def length(self) -> timedelta:
        """Time between start and end."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{format_instant(self.start)} to {format_instant(self.end)}"

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= to_utc(instant) < self.end
