"""JSON files of a step, as frozen pydantic models.

Guarantees: the bytes follow from the content alone; content of another shape is a `StorageError`
that names the file and the field.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Generic, Self, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from pipeline.errors import StorageError

T = TypeVar("T")


class JsonFile(BaseModel):
    """A JSON file of a step, frozen.

    Attributes
    ----------
    STEP
        Folder below the run; empty if the caller names it (``train/als``).
    FILE
        Name in that folder, without ``.json``.
    VOLATILE
        Whether the file contains measurements and is therefore left out of the `Ref`.
    """

    # `json.dumps` refuses NaN; pydantic's default would write null.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    STEP: ClassVar[str] = ""
    FILE: ClassVar[str] = ""
    VOLATILE: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, step: str = "", file: str = "", volatile: bool = False, **config: Unpack[ConfigDict]
    ) -> None:
        """Set the class variables that a class statement names: ``(Artifact, step="train")``."""
        super().__init_subclass__(**config)
        cls.STEP, cls.FILE = step or cls.STEP, file or cls.FILE
        cls.VOLATILE = volatile or cls.VOLATILE

    def plain(self) -> Any:
        """Return the content as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file, keys sorted."""
        plain = self.plain()
        # Bytes must follow from the content alone: checksums and run ids are computed from them.
        return json.dumps(
            plain, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
        ).encode()

    @classmethod
    def parse(cls, data: bytes, where: object) -> Self:
        """Read the bytes of `to_bytes`.

        Parameters
        ----------
        data
            Content of the file.
        where
            Name of the file in the error.

        Raises
        ------
        StorageError
            ``artifact.invalid``: the content does not fit the fields of the class.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StorageError(
                "artifact.invalid",
                f"{where} is not a {cls.__name__}: {field}: {first['msg']}; restore the file, or "
                "use the version of Nightjar that wrote it",
            ) from error


class Artifact(JsonFile):
    """A JSON file whose keys are the model's fields."""

    # An unknown key fails by name; in a plain dictionary it would go unnoticed (ADR 16).
    model_config = ConfigDict(extra="forbid")


class RootArtifact(JsonFile, RootModel[T], Generic[T]):
    """A JSON file that contains one object of a stage, as `root`."""
