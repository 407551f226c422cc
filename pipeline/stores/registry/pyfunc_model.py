"""The model that `mlflow models serve` runs: recommendation lists from arrays, without pickle.

Guarantees:

* A user of the training window gets exactly the list of `models.topk`.
* A user without events gets the list of its features, where the publication has it; its slot is
  that of the fallback list, as there.
* Other users, and users without remaining items, get the fallback list; `slot` marks it.
* `known` is false for all other ids, raw ids of the shop among them.
* Lists are never padded, and never longer than the published ones.

Users are pseudonyms; `nightjar id` translates ids. Rules and stock are not applied: the lists that
users see are those of a publication.

Files of a model, all read without pickle:

    scorer.npz    arrays of the scorer
    history.npz   arrays of the window's `History`: its users and their items
    described.npz the same for users without events who get the list of their features
    meta.json     {"family": str, "exclude_seen": bool,
                   "fallback": [{"item_id": str, "score": float}, ...]}  best first
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pipeline import columns as c


class Recommender(PythonModel):
    """Lists of at most k items for the user of each row, in the order of the request."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the arrays and the scorer."""
        # Imported here: this module is also run when the model is logged, and needs no model then.
        from pipeline.data.matrix import History
        from pipeline.models.families import load

        files = {name: Path(path) for name, path in context.artifacts.items()}
        meta = json.loads(files["meta.json"].read_text(encoding="utf-8"))
        self._histories = [
            History.from_arrays(_arrays(files[name])) for name in ("history.npz", "described.npz")
        ]
        self._scorer = load(meta["family"], _arrays(files["scorer.npz"]))
        self._exclude_seen = bool(meta["exclude_seen"])
        self._fallback = [(row[c.ITEM_ID], row[c.SCORE]) for row in meta["fallback"]]
        self._rows = [
            {user: row for row, user in enumerate(history.user_ids.tolist())}
            for history in self._histories
        ]

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return rows (`user_id`, `position` from 1, `item_id`, `score`, `slot`, `known`).

        Parameters
        ----------
        model_input
            Column `user_id`: pseudonyms.
        params
            ``k``: maximum length of a list; default: the length of the published lists.

        Raises
        ------
        MlflowException
            ``INVALID_PARAMETER_VALUE``: `k` is not a number from 1 to that length. A `k` of another
            type, such as text, has this code as well, but MLflow's own sentence: MLflow compares it
            with the signature before this method, and has no place for a sentence of the model.
        """
        longest = len(self._fallback)
        k = (params or {}).get("k", longest)
        if not isinstance(k, int) or not 1 <= k <= longest:
            raise MlflowException.invalid_parameter_value(
                f"k must be a whole number from 1 to {longest}, the length of the lists, not {k!r}"
            )
        users = [str(user) for user in model_input[c.USER_ID]]
        own, described = (self._lists(part, users, k) for part in range(2))
        fallback = self._fallback[:k]
        rows = [
            (user, position, item, score, slot, any(user in part for part in self._rows))
            for user in users
            for slot in (c.Slot.MODEL if user in own else c.Slot.FALLBACK,)
            for position, (item, score) in enumerate(
                own.get(user) or described.get(user, fallback), start=1
            )
        ]
        kinds = (str, "int32", str, "float32", str, bool)
        columns = [c.USER_ID, c.POSITION, c.ITEM_ID, c.SCORE, c.SLOT, c.KNOWN]
        return pd.DataFrame(rows, columns=columns).astype(dict(zip(columns, kinds, strict=True)))

    def _lists(self, part: int, wanted: list[str], k: int) -> dict[str, list[tuple[str, float]]]:
        from pipeline.models.topk import top_k

        row = self._rows[part]
        users = sorted({user for user in wanted if user in row})
        if not users:
            return {}
        history = self._histories[part].take(np.array([row[user] for user in users], np.int64))
        lists = top_k(
            self._scorer.score(history), k, exclude=history.seen if self._exclude_seen else None
        )
        items = self._scorer.item_ids[lists.item].tolist()
        scores = lists.score.tolist()
        return {
            user: list(zip(items[start:end], scores[start:end], strict=True))
            for user, start, end in zip(users, lists.indptr[:-1], lists.indptr[1:], strict=True)
            if end > start
        }


def _arrays(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


set_model(Recommender())
