"""Config base class, instants in UTC and half-open intervals.

Guarantees: an instant without a time zone raises `instant.naive`; `parse_instant` reads back
exactly the instant that `format_instant` wrote; an interval contains its start but not its end, and
cannot end before it starts.
"""

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
"""Callback for the short status texts of a long task; always passed as an argument."""


def silent(_: str) -> None:
    """Discard a progress text."""


class Frozen(BaseModel):
    """Base of every config: instances are immutable, and an unknown field is an error."""

    # Defaults are validated as well, so that a default outside its own bounds is an error. A value
    # may be a password in the wrong place, and tracebacks show pydantic's text. An infinite bound
    # would switch a check off.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


def to_utc(instant: datetime) -> datetime:
    """Return an instant in UTC; `ConfigError` `instant.naive` if it has no time zone."""
    if instant.tzinfo is None:
        raise ConfigError(
            "instant.naive",
            f"{instant.isoformat()} has no time zone; write it as {instant.isoformat()}Z",
        )
    return instant.astimezone(UTC)


def parse_instant(text: str) -> datetime:
    """Parse an ISO 8601 instant with a time zone, such as ``2017-12-01T09:00:00Z``."""
    try:
        return to_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):  # in UTC it may lie outside the calendar
        raise ConfigError(
            "instant.invalid", f"{text!r} is not an instant; write it as 2017-12-01T09:00:00Z"
        ) from None


def format_instant(instant: datetime) -> str:
    """Format an instant as ``2017-12-01T09:00:00Z``, with microseconds unless they are 0."""
    return to_utc(instant).isoformat().replace("+00:00", "Z")


def to_the_second(instant: datetime) -> str:
    """Format an instant for a sentence: ``2017-12-01T09:00:00Z``, without fractions of seconds."""
    return format_instant(instant.replace(microsecond=0))


def compact_instant(instant: datetime) -> str:
    """Format an instant for a file name: ``20171201T090000Z``."""
    return to_utc(instant).strftime("%Y%m%dT%H%M%SZ")


Instant = Annotated[
    datetime,
    AfterValidator(to_utc),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
]
"""Instant in a file: in UTC, written by `format_instant`; a naive one raises `ConfigError`."""

AsOf = NewType("AsOf", datetime)
"""As-of instant in UTC, which bounds all data of a run; `as_of` creates it from user input."""


def as_of(value: datetime | str) -> AsOf:
    """Convert an instant to `AsOf`; `ConfigError` if it is naive or the text cannot be parsed."""
    return AsOf(parse_instant(value) if isinstance(value, str) else to_utc(value))


def plain(value: object) -> Any:
    """Convert a dataclass or model to plain JSON values, as printed by ``--json``.

    A class whose JSON differs from its fields defines a method `plain`.
    """
    if hasattr(value, "plain"):
        return value.plain()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return TypeAdapter(type(value)).dump_python(value, mode="json", by_alias=True)


@dataclass(frozen=True)
class Interval:
    """Half-open interval ``[start, end)`` in UTC; in a file, the pair of both instants."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        # A frozen dataclass has no other way to normalise its own fields.
        object.__setattr__(self, "start", to_utc(self.start))
        object.__setattr__(self, "end", to_utc(self.end))
        if self.end < self.start:
            raise ConfigError(
                "interval.reversed",
                f"the interval {self} ends before it starts; exchange the two instants",
            )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Interval], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # Code passes an Interval, a file holds the pair of its instants.
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
        """Duration from start to end."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{format_instant(self.start)} to {format_instant(self.end)}"

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= to_utc(instant) < self.end
