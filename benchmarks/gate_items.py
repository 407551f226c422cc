"""Standard errors of recipes that list nearly the same items to all users.

A change of one place in such a list changes the values of many users at once, so the users are not
independent. Weekly discovery blocks of a real shop are evaluated with popularity and decayed
popularity, trained before the block and a week earlier (R2), and one against the other (R6). Each
rule is applied with four standard errors:

* of users, as the gate does;
* of items: the influences of the hits are summed by item;
* of both: users + items − single hits;
* by history: at least the robust SD of the last eight changes.

Guarantees: the error of users is that of `difference`, up to n/(n − 1).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, shown
from benchmarks.gate_shops import Shop
from benchmarks.gate_simulation import Floats, bound
from pipeline import columns as c
from pipeline.base import Progress
from pipeline.models.popularity import DecayedPopularity

K = 10
WEEK, WARM = 7, 8
EARLIER, LEAST = 8, 4
ERRORS = ("users", "items", "both", "history")
RULES = {
    "R2 popularity": ("popularity", "earlier popularity"),
    "R2 decayed_popularity": ("decayed_popularity", "earlier decayed_popularity"),
    "R6 popularity": ("popularity", "decayed_popularity"),
    "R6 decayed_popularity": ("decayed_popularity", "popularity"),
}
"""Rule and champion -> what is compared with what."""
_DISCOUNT = 1 / np.log2(np.arange(K) + 2)
_IDEAL = np.cumsum(_DISCOUNT)
_FIRST = 600
"""Number of items that are searched for those that a user does not have."""


@dataclass(frozen=True)
class Coded:
    """Purchases of a shop as numbers: user, item, and days before the end."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    days: Floats

    @classmethod
    def of(cls, shop: Shop) -> Coded:
        """Number the users and items of a shop."""
        days = (pl.lit(shop.end) - pl.col(c.TIMESTAMP)).dt.total_seconds() / 86_400
        ids = [
            np.unique(shop.events[column].to_numpy(), return_inverse=True)[1]
            for column in (c.USER_ID, c.ITEM_ID)
        ]
        return cls(*ids, shop.events.select(days).to_series().to_numpy())

    def pairs(self, until: float, since: float = np.inf) -> sparse.csr_matrix:
        """Return which users have which items between two days before the end."""
        inside = (self.days > until) & (self.days <= since)
        ones = np.ones(int(inside.sum()), np.int8)
        shape = (int(self.user.max()) + 1, int(self.item.max()) + 1)
        pairs = sparse.csr_matrix((ones, (self.user[inside], self.item[inside])), shape=shape)
        pairs.data[:] = 1
        return pairs

    def scores(self, cutoff: float) -> dict[str, Floats]:
        """Return the scores of both recipes, trained until a cutoff."""
        past = self.days > cutoff
        weights = {
            "popularity": np.ones(int(past.sum())),
            "decayed_popularity": 0.5
            ** ((self.days[past] - cutoff) / DecayedPopularity().half_life_days),
        }
        count = int(self.item.max()) + 1
        return {
            name: np.bincount(self.item[past], weights=weight, minlength=count)
            for name, weight in weights.items()
        }


def gains(scores: Floats, had: sparse.csr_matrix, targets: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return each hit's part of its user's NDCG, of lists without the items that a user had."""
    first = np.argsort(-scores, kind="stable")[:_FIRST]
    free = had[:, first].toarray() == 0
    place = np.cumsum(free, axis=1)
    row, column = np.nonzero(free & (place <= K))
    item, place = first[column], place[row, column] - 1
    hit = np.asarray(targets[row, item]).ravel() > 0
    ideal = _IDEAL[np.minimum(np.diff(targets.indptr), K) - 1]
    values = _DISCOUNT[place[hit]] / ideal[row[hit]]
    return sparse.csr_matrix((values, (row[hit], item[hit])), shape=targets.shape)


def change(own: sparse.csr_matrix, base: sparse.csr_matrix) -> tuple[float, dict[str, float]]:
    """Return the relative change of a sum of gains, and its standard errors."""
    total = float(base.sum())
    x = float(own.sum()) / total - 1
    influence = (own - base - x * base) / total
    squares = [float((np.asarray(influence.sum(axis=axis)) ** 2).sum()) for axis in (1, 0)]
    hits = float(influence.multiply(influence).sum())
    both = max(squares[0], squares[0] + squares[1] - hits)
    return x, dict(zip(ERRORS, np.sqrt([*squares, both]), strict=False))


def blocks(shop: Shop) -> Iterator[Mapping[str, tuple[float, dict[str, float]]]]:
    """Yield the changes of each weekly block, oldest first."""
    coded = Coded.of(shop)
    earlier: dict[str, Floats] | None = None
    for back in range(int(coded.days.max()) // WEEK - WARM - 1, -1, -1):
        end, cutoff = WEEK * back, WEEK * (back + 1)
        had, targets = coded.pairs(cutoff), coded.pairs(end, cutoff)
        targets = targets - targets.multiply(had)
        targets.eliminate_zeros()
        users = np.flatnonzero((np.diff(targets.indptr) > 0) & (np.diff(had.indptr) > 0))
        scores = coded.scores(cutoff)
        if earlier is not None:
            both = scores | {f"earlier {name}": old for name, old in earlier.items()}
            each = {name: gains(s, had[users], targets[users]) for name, s in both.items()}
            yield {rule: change(each[own], each[base]) for rule, (own, base) in RULES.items()}
        earlier = scores


def failed(x: Floats, errors: Floats, *, history: bool) -> int:
    """Count the blocks on which a rule fails.

    Parameters
    ----------
    x, errors
        Changes by block, and their standard errors.
    history
        Whether an error is at least the robust SD of the eight changes before.
    """
    count = 0
    for at in range(len(x)):
        past, se = x[max(0, at - EARLIER) : at], float(errors[at])
        if history and len(past) >= LEAST:
            se = max(se, 1.4826 * float(np.median(np.abs(past - np.median(past)))))
        count += bool(x[at] < bound(se))
    return count


def items(shops: Iterable[Shop], progress: Progress) -> list[Figure]:
    """Return the failed blocks of each rule by the kind of its error.

    Parameters
    ----------
    shops
        Purchases.
    progress
        Receives a line for each shop.
    """
    figures = []
    for shop in shops:
        progress(f"{shop.name}: weekly blocks of popularity")
        weeks: Sequence[Mapping[str, tuple[float, dict[str, float]]]] = list(blocks(shop))
        for rule in RULES:
            x = np.array([week[rule][0] for week in weeks])
            for kind in ERRORS:
                of = "users" if kind == "history" else kind
                errors = np.array([week[rule][1][of] for week in weeks])
                count = failed(x, errors, history=kind == "history")
                what = f"{shop.name}, {rule}, error of {kind}: failed of {len(x)} blocks"
                figures.append(shown(what, f"{count} (median error {np.median(errors):.1%})"))
    return figures
