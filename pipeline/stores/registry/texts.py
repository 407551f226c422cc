"""Descriptions of the experiments and of the registered model, and the table of runs.

Guarantees: descriptions are the same for every workspace; MLflow renders them as Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

VIEW_TAG: Final = "mlflow.sharedViewState.nightjar"
"""Tag of an experiment with its table of runs; the address has the last part of this name."""
_RUN_NAME: Final = "attributes.`Run Name`"
_NAME_WIDTH: Final = 235

_READING: Final = (
    "Metrics 1 to 3 are lifts in percent, with their 95 % interval (low, high). An interval "
    "above 0 means better, one below 0 worse; one around 0 means about as good, or unclear if it "
    "contains a loss that the gate does not accept.\n\n"
    "* *1 lift over version 1 pct*: the one that compares any versions. It is the product of the "
    "lifts over the version before; version 1 itself has none. It differs a little from the direct "
    "comparison on a page, because each of these lifts is measured on the users and days of its "
    "night.\n"
    "* *2 lift over version before pct*: over the version that was live before, both on the same "
    "users and days. It shows which of the two is better.\n"
    "* *3 lift over baseline pct*: over the best baseline, on the holdout of the run. Two nights "
    "have other days and users: do not compare it between versions.\n"
    "* *4 ndcg_at_N*, for lists of N items: as metric 3, not comparable between versions."
)
MODEL: Final = (
    "Retrained every night. Alias champion is the live version, previous the one before it.\n\n"
    f"**To compare versions**, select them in the list and press *Compare*. {_READING}\n\n"
    "**Pages**: the run of a version has the page of its night (page.html), the comparison with "
    "the version before, and the pages of `nightjar compare`, in the folder comparisons.\n\n"
    "**Served model**: users are pseudonyms. `nightjar id USER` translates an id of the shop into "
    "a pseudonym, and a pseudonym back. For any other id the column known is false, and the list "
    "is the one for users without events."
)
NIGHTS: Final = (
    "One run per night, named by its day, its decision and the lift of the live model over the "
    "version before; below it one run per recipe. "
    f"{_READING}"
)
STUDIES: Final = (
    "One run per tuning study, below it one run per trial. A study that has found a better recipe "
    "adds it to the next nightly run as a candidate."
)


def runs_view(columns: Sequence[str]) -> str:
    """Return the table of runs as MLflow stores it: without it, its columns have no metric.

    Parameters
    ----------
    columns
        Names of the metrics that are columns.
    """
    metrics = [f"metrics.`{name}`" for name in columns]
    # In pixels, so that a title is readable as a whole, and three are beside the name at 1,280 px.
    widths = {f"metrics.`{name}`": 6 * len(name) + 10 for name in columns}
    return json.dumps(
        {
            "selectedColumns": metrics,
            "columnOrder": [_RUN_NAME, *metrics],
            "columnWidths": {_RUN_NAME: _NAME_WIDTH, **widths},
        }
    )
