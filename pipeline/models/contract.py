"""Contract of all model families: recipe -> trainer -> scorer -> scores.

A *recipe* (family and frozen hyperparameters) trains on a `History` and returns a *scorer*. For a
block of users a scorer yields `Scores`: an inner product of factors, a history times links between
items, a sparse term, or their sum. `models.topk` turns scores into exact lists, so evaluation,
gating, lists and serving are written once.

Guarantees, tested for each family: equal data and recipe give equal scores where `deterministic` is
declared; `arrays` and `from_arrays` give the same lists; a user without events and features gets
a list from baselines only; an item whose weights sum to 0 or less was never had; `trained_until`
is the end of the window.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import getitem
from typing import Annotated, Any, ClassVar, Final, Self, TypedDict

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticKnownError

from pipeline.base import Frozen, Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models.codec import Arrays, pack, unpack

CATALOGUE: Final = "catalogue"
"""Key of `Scorer.item_ids` in `Scorer.arrays`."""
HalfLife = Annotated[float, Field(gt=0, le=3650)]
"""Days after which an event counts half."""
Penalty = Annotated[float, Field(ge=1e-6, le=1e6)]
"""Weight of the squared length of factors or coefficients."""
Share = Annotated[float, Field(ge=0, le=1)]
"""Number from 0 to 1."""
FAMILY: Final = "Name of the family."


@dataclass(frozen=True)
class Capabilities:
    """Properties that a family declares, so that no caller detects them by a caught exception.

    Attributes
    ----------
    fold_in
        It can score users from a history that it was not trained on.
    deterministic
        Equal data and recipe give equal bytes on the CPU, whatever the number of threads.
    baseline
        Rank among the baselines, 0 for the simplest; ``None`` for families that learn.
    repeats_only
        Useful only if lists may repeat items.
    ratings
        Its scores are ratings on the scale of the data, so RMSE and MAE are measured as well.
    """

    fold_in: bool
    deterministic: bool
    baseline: int | None = None
    repeats_only: bool = False
    ratings: bool = False


@dataclass(frozen=True)
class Scores:
    """Scores of some users for the whole catalogue, stored as factors instead of a dense matrix.

    The score of (user, item) is the sum of the parts that are present::

        users[user] @ items[item]  +  (user_history @ item_similarity)[user, item]
                                   +  sparse_bonus[user, item]

    Without factors, only stored cells of the other parts have a score. A user whose factors are all
    zero has no score outside those cells either: the model has no information about the user.

    Attributes
    ----------
    users, items
        ``(n_users, f)`` and ``(n_items, f)`` float32, or both ``None``.
    user_history, item_similarity
        Users × m and m × items CSR float32, or both ``None``: the items of a user, and the links
        from each to others. `topk` multiplies a block of users at a time.
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
        products = (
            (self.users, None if self.items is None else self.items.T),
            (self.user_history, self.item_similarity),
            (self.sparse_bonus, self.sparse_bonus),
        )
        if any((left is None) != (right is None) for left, right in products):
            raise ValueError("half of a product is missing: users/items or history/similarity")
        for left, right in products:
            if left is not None and right is not None:
                return left.shape[0], right.shape[1]
        raise ValueError("scores need factors of users and items, links, or a sparse term")


# A generated `__eq__` would need the truth value of an array comparison, which numpy refuses.
@dataclass(frozen=True, eq=False, kw_only=True)
class Scorer(ABC):
    """A trained model: scores users over its own catalogue.

    Attributes
    ----------
    item_ids
        ``(n_items,)`` str, sorted: the columns of all scores.
    trained_until
        Exclusive end of the training window, in UTC.
    trained_on
        ``cpu`` or ``cuda``.
    """

    declared: ClassVar[Capabilities]
    """Capabilities of all scorers of a family; where scorers differ, `capabilities` does."""

    item_ids: NDArray[np.str_] = field(metadata={"key": CATALOGUE})
    trained_until: datetime
    trained_on: str = "cpu"

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of this scorer."""
        return self.declared

    @property
    def parameters(self) -> int:
        """Number of learnt numbers: the size of all float arrays."""
        # Ids and the positions of sparse cells are arrays as well, but not learnt.
        return sum(a.size for a in self.arrays().values() if a.dtype.kind == "f")

    def score(self, history: History) -> Scores:
        """Score the users of `history`, rows in its order.

        A family that stores user factors scores users of the training window as trained; the others
        are folded in where that is declared, else it raises `KeyError`. A family without stored
        users scores `history` alone: give it the window that it was trained on.

        Raises
        ------
        ValueError
            `history` has another catalogue than this scorer.
        """
        self.check(history)
        return self._score(history)

    def fold_in(self, history: History) -> Scores:
        """Score users from the events in `history` alone, as if they were new.

        Raises
        ------
        ValueError
            `history` has another catalogue than this scorer.
        KeyError
            The family does not declare `fold_in`.
        """
        self.check(history)
        return self._fold_in(history)

    def _score(self, history: History) -> Scores:
        """Score as `score`; families that store users override it."""
        return self._fold_in(history)

    @abstractmethod
    def _fold_in(self, history: History) -> Scores:
        """Score as `fold_in`, over the catalogue of this scorer."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all fields as plain arrays of strings and numbers, see `codec`."""
        return pack(self)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer from `arrays`."""
        return cls(**unpack(cls, arrays))

    def check(self, history: History) -> None:
        """Raise `ValueError` if `history` has another catalogue."""
        # The identity is tested first: comparing a million ids takes much longer.
        own_items, other_items = self.item_ids, history.item_ids
        if own_items is not other_items and not np.array_equal(own_items, other_items):
            sizes = f"{len(other_items)} and {len(own_items)} items"
            raise ValueError(f"the history has another catalogue than the model: {sizes}")


class TrainedWindow(TypedDict):
    """Fields that a scorer takes from its training window."""

    item_ids: NDArray[np.str_]
    trained_until: datetime


def nested_arrays(name: str, part: Scorer, whole: Scorer) -> dict[str, NDArray[Any]]:
    """Return the arrays of a scorer inside another one.

    Parameters
    ----------
    name
        Keys begin with it and ``/``.
    part, whole
        The inner and the outer scorer; fields that they share are left out.
    """
    shared = {"trained_until", "trained_on"}
    # A scorer with new items lists more than the part inside it, which then keeps its own ids.
    if np.array_equal(part.item_ids, whole.item_ids):
        shared.add(CATALOGUE)
    return {f"{name}/{key}": array for key, array in part.arrays().items() if key not in shared}


def nested_scorer(name: str, family: str, arrays: Arrays) -> Scorer:
    """Rebuild a scorer from the arrays of the one around it.

    Parameters
    ----------
    name, family
        Name given to `nested_arrays`, and family of the inner scorer.
    arrays
        Arrays of the outer scorer.
    """
    shared = {key: arrays[key] for key in (CATALOGUE, "trained_until", "trained_on")}
    start = f"{name}/"
    own = {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
    # The part's own arrays come last, so that a catalogue of its own replaces the shared one.
    return load(family, shared | own)


@dataclass(frozen=True)
class Span:
    """Values to try for one hyperparameter.

    Attributes
    ----------
    grid
        A few values that cover the range, rising: the choices of a nightly run.
    low, high
        Range of a longer search, both ends included.
    log
        Steps are ratios, not differences.
    """

    grid: tuple[float, ...]
    low: float
    high: float
    log: bool = True


# A field that is named twice would be selected twice and give the recipe another hash.
def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class Recipe(Frozen):
    """A model family and its frozen hyperparameters; names are implicit's.

    Subclasses give ``family: Literal[...]`` its default and add the fields of their family.
    """

    scorer: ClassVar[type[Scorer]]
    hash_excluded: ClassVar[frozenset[str]] = frozenset()
    """Fields that name the machine to train on: they do not make another recipe."""
    space: ClassVar[Mapping[str, Span]] = {}
    """Fields that can be selected on tuning windows, and their values; see `tunable`."""

    rough: ClassVar[Mapping[str, int]] = {}
    """Upper limits of fields while values of other fields are compared: a fit with them costs a
    fraction, and ranks the values alike."""

    tune: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(
        default=(),
        description="Fields that the first nightly run with this recipe selects, on windows before "
        "the holdout; later runs keep the selected values.",
    )
    family: str = Field(description=FAMILY)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Register the family of a subclass that names one."""
        # Not `__init_subclass__`: pydantic has not collected the fields of the class by then.
        super().__pydantic_init_subclass__(**kwargs)
        # Common bases of families, such as `ItemItemRecipe`, have no name and are not recipes.
        if isinstance(family := cls.model_fields["family"].default, str):
            FAMILIES[family] = cls

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the scorers that this recipe trains."""
        return self.scorer.declared

    @model_validator(mode="after")
    def _tunable(self) -> Self:
        # A trial of a field that the recipe does not read would look like one without a gain.
        for name in self.tune:
            if name not in self.tunable:
                raise ValueError(
                    f"tune: {name!r} cannot be selected for this recipe. Allowed: "
                    f"{', '.join(self.tunable) or 'no field of this family'}"
                )
        return self

    @property
    def tunable(self) -> Mapping[str, Span]:
        """Fields of `space` that this recipe reads, given its other fields."""
        return self.space

    @property
    def inner_recipes(self) -> dict[tuple[str, ...], Recipe]:
        """Recipes inside this one, by the keys that lead to them in its dump."""
        inner: dict[tuple[str, ...], Recipe] = {}
        for name, value in self:
            parts = value if isinstance(value, dict) else {}
            inner |= {(name, key): part for key, part in parts.items() if isinstance(part, Recipe)}
            if isinstance(value, Recipe):
                inner[name,] = value
        return inner

    @property
    def has_free_params(self) -> bool:
        """True if a hyperparameter, of an inner recipe as well, is still to be selected."""
        return bool(self.tune) or any(r.has_free_params for r in self.inner_recipes.values())

    @property
    def seeded(self) -> bool:
        """True if a fit draws random numbers, so that another replicate is another scorer."""
        inner = self.inner_recipes.values()
        return "random_state" in type(self).model_fields or any(r.seeded for r in inner)

    @property
    def hash(self) -> str:
        """First 12 hex digits of the sha256 of the recipe's canonical JSON."""
        # Sorted keys keep the hash when a family declares its fields in another order.
        canonical = json.dumps(self._hashed(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def summary(self) -> str:
        """Fields that differ from the defaults of the family, as short text."""
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self
            if name != "tune" and value != type(self).model_fields[name].default
        )

    def _hashed(self) -> dict[str, Any]:
        """Return all fields but `hash_excluded`, of inner recipes as well."""
        chosen = self.model_dump(mode="json", exclude=set(self.hash_excluded))
        # `exclude` reaches only outer fields, and an inner recipe may exclude some of its own.
        for (*path, last), recipe in self.inner_recipes.items():
            reduce(getitem, path, chosen)[last] = recipe._hashed()
        return chosen

    @abstractmethod
    def peak_bytes(self, history: History) -> int:
        """Estimate the bytes that `train` allocates at its peak.

        Within 30 % on windows of a million events and more. `steps` refuse a recipe that does not
        fit before training starts.
        """

    def fitted_bytes(self, history: History) -> int:
        """Estimate the bytes of the scorer that `train` returns; 0 if they are few."""
        return 0

    def cpu_seconds(self, history: History) -> float:
        """Estimate the CPU seconds of `train`, within a factor of three.

        From counts alone: a clock would let the load of the machine decide.
        """
        inner = sum(recipe.cpu_seconds(history) for recipe in self.inner_recipes.values())
        return inner or len(history.item) * 1e-5

    @staticmethod
    def window(history: History) -> TrainedWindow:
        """Return the fields that a scorer takes from its training window."""
        return TrainedWindow(item_ids=history.item_ids, trained_until=history.end)

    @abstractmethod
    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Learn from a window.

        Parameters
        ----------
        history
            The training window.
        replicate
            Number of the fit: another one draws other random numbers.
        progress
            Receives one line per long step.

        Raises
        ------
        ResourceError
            The device, the memory or an optional library is not available.
        ConfigError
            `model.diverged` or `model.singular`: the fit failed with these hyperparameters.
        """

    def train_items(self, history: History) -> Scorer:
        """Train for lists of a few users; users who are not scored need not be computed.

        Returns
        -------
        A scorer with the scores of `train` for the users of the window.
        """
        return self.train(history)

    def train_again(
        self, history: History, first: Scorer, replicate: int, progress: Progress = silent
    ) -> Scorer:
        """Train another replicate; a fit without random numbers is the first one.

        Parameters
        ----------
        history
            The training window of `first`.
        first
            Replicate 0.
        replicate, progress
            As in `train`.
        """
        if not self.seeded:
            return first
        return self.train(history, replicate=replicate, progress=progress)


FAMILIES: Final[dict[str, type[Recipe]]] = {}
"""The recipe of each family by name; `families` imports all of them."""


def _of_family(value: Any) -> Any:
    """Validate a mapping as the recipe of the family that it names."""
    if isinstance(value, Recipe):
        return value
    # The errors of a tagged union, which pydantic cannot build from a growing list of families.
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


# Without `SerializeAsAny` pydantic dumps only the fields of `Recipe`, so files would lack the
# hyperparameters of the family.
AnyRecipe = Annotated[SerializeAsAny[Recipe], BeforeValidator(_of_family)]
"""A recipe of the family that its field `family` names."""
_ANY_RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(AnyRecipe)


def recipe_from(dumped: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe from the output of ``model_dump(mode="json")``.

    Raises
    ------
    ConfigError
        `recipe.invalid`: the family is unknown, or a field is not valid.
    """
    try:
        return _ANY_RECIPE.validate_python(dumped)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (dumped.get("family", "family"), *first["loc"]))
        raise ConfigError(
            "recipe.invalid", f"invalid recipe: {where}: {first['msg']}; correct this field"
        ) from error


def load(family: str, arrays: Arrays) -> Scorer:
    """Rebuild a scorer from its arrays.

    Parameters
    ----------
    family
        Name of its family.
    arrays
        Output of `Scorer.arrays`.

    Raises
    ------
    ConfigError
        `recipe.unknown_family`: `family` is not registered.
    """
    if family not in FAMILIES:
        raise ConfigError(
            "recipe.unknown_family",
            f"unknown model family {family!r}. Allowed: {', '.join(FAMILIES)}",
        )
    return FAMILIES[family].scorer.from_arrays(arrays)
