"""The served model, without MLflow's server: whose list each user gets."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import columns as c
from pipeline.data.matrix import History
from pipeline.models.als import Als
from pipeline.models.ridge import Ridge
from tests.served import served
from tests.windows import grouped, strangers, with_groups

BASE = Als(factors=4, regularization=0.1, iterations=10, half_life_days=None, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with two users without events, the second of whom has no features."""
    window = with_groups(grouped(), cold_items=False)
    described: History = strangers(window, [[2], []])
    scorer = Ridge(factors_of=BASE).train(window)
    folder = tmp_path_factory.mktemp("model")
    np.savez(folder / "scorer.npz", **scorer.arrays())
    np.savez(folder / "history.npz", **window.arrays())
    np.savez(folder / "described.npz", **described.arrays())
    fallback = [{c.ITEM_ID: f"i0{n}", c.SCORE: 9.0 - n} for n in range(5)]
    meta = {"family": "ridge", "exclude_seen": True, "fallback": fallback}
    (folder / "meta.json").write_text(json.dumps(meta))
    return served(folder)


def answer(model: Any, *users: str) -> pd.DataFrame:
    rows: pd.DataFrame = model.predict(None, pd.DataFrame({c.USER_ID: users}))
    assert rows[c.POSITION].tolist() == [1, 2, 3, 4, 5] * len(users)
    return rows


def test_a_user_without_events_gets_the_list_of_its_features(model: Any) -> None:
    rows = answer(model, "new0")
    assert rows[c.ITEM_ID].str.startswith("i2").all()
    assert set(rows[c.SLOT]) == {c.Slot.FALLBACK.value}
    assert rows[c.KNOWN].all()


def test_each_user_of_a_request_gets_the_own_list(model: Any) -> None:
    users = ["stranger", "new0", "u15", "new1", "new0"]
    rows = answer(model, *users)
    parts = [rows[at : at + 5] for at in range(0, 25, 5)]
    assert [part[c.USER_ID].iloc[0] for part in parts] == users
    slots = [set(part[c.SLOT]) for part in parts]
    assert slots == [{"fallback"}, {"fallback"}, {"model"}, {"fallback"}, {"fallback"}]
    assert [bool(part[c.KNOWN].all()) for part in parts] == [False, True, True, True, True]
    fallback = [f"i0{n}" for n in range(5)]
    assert [part[c.ITEM_ID].tolist() == fallback for part in parts] == [
        True, False, False, True, False,
    ]  # fmt: skip
    alone = answer(model, "u15")
    assert alone[c.ITEM_ID].tolist() == parts[2][c.ITEM_ID].tolist()
