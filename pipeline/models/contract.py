"""The one contract of all model families: recipe -> trainer -> scorer -> scores.

A *recipe* (family and frozen hyper-parameters) trains on a `History` and returns a *scorer*. For a
block of users a scorer yields `Scores`: an inner product of factors, a history times links between
items, a sparse term, or their sum. `models.topk` turns scores into exact lists, so evaluation,
gating, lists and serving are written once.

What every family promises (tests/contracts/test_models.py): equal data and recipe give equal
scores where `deterministic` is declared; `arrays` and `from_arrays` give the same lists; a user
without a row gets no invented list; `trained_until` is the end of its window.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Self, TypedDict

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from pipeline.base import Frozen, Progress, format_instant, parse_instant, silent
from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models.codec import Arrays, pack, unpack

HEADER = ("item_ids", "trained_until", "trained_on")
"""Fields of every scorer, which `Scorer.header` stores."""
_ITEMS = "catalogue"
_UNTIL = "trained_until"
_ON = "trained_on"


@dataclass(frozen=True)
class Capabilities:
    """What a family declares about itself; nothing is found out by a caught exception.

    Attributes
    ----------
    fold_in
        It can score users from a history that it was not trained on.
    deterministic
        Equal data and recipe give equal bytes on the CPU, whatever the number of threads.
    baseline
        Its place on the ladder of a first model, lowest first; ``None`` for what learns.
    repeats_only
        It has something of its own to say only where lists may hold items that a user already had.
    ratings
        Its scores are ratings on the scale of the data: it is measured by RMSE and MAE, too.
    """

    fold_in: bool
    deterministic: bool
    baseline: int | None = None
    repeats_only: bool = False
    ratings: bool = False


@dataclass(frozen=True)
class Scores:
    """Scores of some users for the whole catalogue, not yet written out.

    The score of (user, item) is the sum of the parts that are there::

        users[user] @ items[item]  +  (user_history @ item_similarity)[user, item]
                                   +  sparse_bonus[user, item]

    Without factors, only stored cells of the other parts have a score at all; neither has a user
    whose factors are all zero (nothing is known of them) any score outside those cells.

    Attributes
    ----------
    users, items
        ``(n_users, f)`` and ``(n_items, f)`` float32, or both ``None``.
    user_history, item_similarity
        Users × anything and anything × items CSR float32, or both ``None``: what a user had, and
        where each of it leads. `topk` multiplies a block of users at a time.
    sparse_bonus
        Users × items CSR float32, ≥ 0, over items the user already had, or ``None``.
    """

    users: NDArray[np.float32] | None = None
    items: NDArray[np.float32] | None = None
    sparse_bonus: sp.csr_matrix | None = None
    user_history: sp.csr_matrix | None = None
    item_similarity: sp.csr_matrix | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of users, number of items."""
        pairs = ((self.users, self.items), (self.user_history, self.item_similarity))
        if any((left is None) != (right is None) for left, right in pairs):
            raise ValueError(
                "scores have half of a product: users and items, history and similarity"
            )
        if self.users is not None and self.items is not None:
            return len(self.users), len(self.items)
        if self.user_history is not None and self.item_similarity is not None:
            return int(self.user_history.shape[0]), int(self.item_similarity.shape[1])
        if self.sparse_bonus is not None:
            return int(self.sparse_bonus.shape[0]), int(self.sparse_bonus.shape[1])
        raise ValueError("scores need factors of users and items, links, or a sparse term")


class Scorer(ABC):
    """A trained model: scores users over its own catalogue.

    Attributes
    ----------
    item_ids
        ``(n_items,)`` str, sorted: the columns of all scores.
    trained_until
        Exclusive end, in UTC, of what it has seen.
    trained_on
        ``cpu`` or ``cuda``.
    """

    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it declares about itself; a class attribute where all of a family are alike."""

    @property
    def parameters(self) -> int:
        """How many numbers were learnt: the size of all float arrays."""
        return sum(a.size for a in self.arrays().values() if a.dtype.kind == "f")

    @abstractmethod
    def score(self, history: History) -> Scores:
        """Score the users of `history`, rows in its order.

        `history` must lie over this scorer's catalogue, else `ValueError`. A family that keeps a
        state a user (factors) scores users known from training as trained; the others are folded
        in where that is declared, else they raise `KeyError`. A family that keeps none (own counts)
        answers from `history`: give it the window that it was trained on.
        """

    @abstractmethod
    def fold_in(self, history: History) -> Scores:
        """Score users from the events in `history` alone, as if they were new."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that a fresh process needs, as plain arrays (strings, numbers; no objects).

        These are the header and, by `codec`, the fields of the subclass, which is a dataclass.
        """
        return {**self.header(), **pack(self, skip=HEADER)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer from `arrays`."""
        values: dict[str, Any] = {**unpack(cls, arrays, skip=HEADER), **read_header(arrays)}
        return cls(**values)

    def check(self, history: History) -> None:
        """Raise `ValueError` if `history` lies over another catalogue."""
        own_items, other_items = self.item_ids, history.item_ids
        if own_items is not other_items and not np.array_equal(own_items, other_items):
            raise ValueError(
                f"the history lies over a catalogue of {len(other_items)} items, not over the "
                f"{len(own_items)} that the model was trained on"
            )

    def header(self) -> dict[str, NDArray[Any]]:
        """What every scorer stores; `read_header` turns it back."""
        return {
            _ITEMS: self.item_ids,
            _UNTIL: np.array(format_instant(self.trained_until)),
            _ON: np.array(self.trained_on),
        }


class Header(TypedDict):
    """What every scorer is rebuilt with."""

    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str


def read_header(arrays: Arrays) -> Header:
    """Read what `Scorer.header` wrote."""
    return Header(
        item_ids=arrays[_ITEMS],
        trained_until=parse_instant(str(arrays[_UNTIL])),
        trained_on=str(arrays[_ON]),
    )


@dataclass(frozen=True)
class Span:
    """What is worth trying for one hyper-parameter.

    Attributes
    ----------
    grid
        A few values that cover the range, rising: what a night chooses from.
    low, high
        The range, both ends included, that a longer search may use.
    log
        Whether steps are ratios.
    """

    grid: tuple[float, ...]
    low: float
    high: float
    log: bool = True


class Recipe(Frozen):
    """A model family and its frozen hyper-parameters; names are implicit's.

    Subclasses give ``family: Literal[...]`` its default and add the fields of their family.
    """

    scorer: ClassVar[type[Scorer]]
    hash_excluded: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where it trains, not what: another machine makes no other recipe."""
    space: ClassVar[Mapping[str, Span]] = {}
    """What can be chosen from the data, by field; see `tunable`."""

    tune: tuple[str, ...] = Field(
        default=(),
        description="Fields to choose from the data, on windows before the holdout, in the first "
        "night that trains this recipe; what was found is kept from then on.",
    )
    family: str = Field(description="Name of the family.")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Register the family of a subclass that names one."""
        super().__pydantic_init_subclass__(**kwargs)
        if isinstance(family := cls.model_fields["family"].default, str):
            FAMILIES[family] = cls

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it declares about itself; a class attribute where all of a family are alike."""

    @field_validator("tune")
    @classmethod
    def _tunable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in cls.space:
                allowed = ", ".join(cls.space) or "none of this family"
                raise ValueError(f"{name!r} cannot be chosen from the data; allowed are {allowed}")
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _tunable_as_it_is(self) -> Self:
        for name in self.tune:
            if name not in self.tunable:
                raise ValueError(
                    f"tune: this recipe does not read {name!r}; allowed are "
                    f"{', '.join(self.tunable)}"
                )
        return self

    @property
    def tunable(self) -> Mapping[str, Span]:
        """What of `space` counts for this recipe as its other fields stand."""
        return self.space

    @property
    def has_free_params(self) -> bool:
        """Whether something is still to be chosen from the data."""
        return bool(self.tune)

    @property
    def hash(self) -> str:
        """First 12 hex digits of the sha256 of the recipe's canonical JSON."""
        canonical = json.dumps(self._hashed(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def summary(self) -> str:
        """What was set or chosen that is no default of the family, in a few words for a person."""
        fields = type(self).model_fields
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self
            if name != "tune" and value != fields[name].default
        )

    def _hashed(self) -> dict[str, Any]:
        """Return what the hash is of: all fields but `hash_excluded`, of the parts as well."""
        chosen = self.model_dump(mode="json", exclude=set(self.hash_excluded))
        for name in chosen:
            value = getattr(self, name)
            if isinstance(value, Recipe):
                chosen[name] = value._hashed()
            elif isinstance(value, dict):
                parts = {key: part for key, part in value.items() if isinstance(part, Recipe)}
                chosen[name] |= {key: part._hashed() for key, part in parts.items()}
        return chosen

    @abstractmethod
    def peak_bytes(self, history: History) -> int:
        """Estimate the bytes that `train` needs at its peak, beside what is there before it.

        Within 30 % on windows of a million events and more; `steps` refuse, before the start, what
        does not fit.
        """

    def fitted_bytes(self, history: History) -> int:
        """Estimate the bytes of the scorer that `train` returns; 0 where they are few."""
        return 0

    @abstractmethod
    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Learn from a window.

        `replicate` gives another draw of whatever is random; equal ones give equal scorers where
        the family is deterministic. Raises `ResourceError` when the device, the memory or an extra
        is not there.
        """


FAMILIES: Final[dict[str, type[Recipe]]] = {}
"""The recipe of each family by name; `families` imports all of them."""


def _of_family(value: Any) -> Any:
    """Validate a mapping as the recipe of the family that it names."""
    if isinstance(value, Recipe):
        return value
    if not isinstance(value, Mapping):
        raise PydanticKnownError("model_attributes_type")
    if "family" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'family'"})
    if (family := value["family"]) not in FAMILIES:
        expected = ", ".join(repr(name) for name in FAMILIES)
        raise PydanticKnownError(
            "union_tag_invalid",
            {"discriminator": "'family'", "tag": str(family), "expected_tags": expected},
        )
    return FAMILIES[family].model_validate(value)


AnyRecipe = Annotated[SerializeAsAny[Recipe], BeforeValidator(_of_family)]
"""A recipe of the family that its field `family` names."""


def recipe_from(dumped: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe from the output of ``model_dump(mode="json")``.

    Raises
    ------
    ConfigError
        The family is unknown, or a field is not valid.
    """
    try:
        recipe: Recipe = _of_family(dumped)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (dumped["family"], *first["loc"]))
        raise ConfigError("recipe.invalid", f"not a recipe: {where}: {first['msg']}") from error
    except PydanticKnownError as error:
        raise ConfigError("recipe.invalid", f"not a recipe: {error.message()}") from error
    return recipe


def load(family: str, arrays: Arrays) -> Scorer:
    """Rebuild a scorer of `family` from its arrays."""
    if family not in FAMILIES:
        raise ConfigError(
            "recipe.unknown_family", f"no model family {family!r}; there are {', '.join(FAMILIES)}"
        )
    return FAMILIES[family].scorer.from_arrays(arrays)
