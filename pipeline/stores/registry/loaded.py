"""Lists of a registered version, computed by the model that the registry returns.

Guarantees: the model is loaded by its registered name and version, as a server loads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import columns as c
from pipeline.stores.registry.connection import registry_errors


def registered_lists(
    uri: str, name: str, version: int, users: Sequence[str]
) -> dict[str, list[tuple[str, float]]]:
    """Return lists of full length, as items with scores; changes MLflow's process-wide settings.

    Parameters
    ----------
    uri
        Tracking URI.
    name, version
        Registered model, and number of its version.
    users
        Pseudonyms.

    Returns
    -------
    List of each user that the model knows; of others, and of users without remaining items, none.

    Raises
    ------
    RegistryError
        `registry.failed`: the model cannot be loaded or called.
    """
    with registry_errors(uri):
        import mlflow
        import pandas as pd  # type: ignore[import-untyped]

        # A model of the registry has no argument for its server.
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        model = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
        rows = model.predict(pd.DataFrame({c.USER_ID: list(users)}))
    lists: dict[str, list[tuple[str, float]]] = {}
    own = rows[rows[c.KNOWN] & (rows[c.SLOT] == c.Slot.MODEL.value)]
    for user, item, score in own[[c.USER_ID, c.ITEM_ID, c.SCORE]].itertuples(index=False):
        lists.setdefault(user, []).append((item, score))
    return lists
