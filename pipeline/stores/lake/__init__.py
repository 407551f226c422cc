"""The lake: the Delta tables of a workspace, the one user of deltalake.

Here: `delta`, reading and committing; `tables`, their schemas and partitions; `tail`, what makes a
commit safe on the disk and finds one that is not; `upkeep`, what keeps tables quick and small.
Not here: what a batch, a publication or a list means.
"""

from pipeline.stores.lake.compaction import Cleared, Compaction
from pipeline.stores.lake.delta import Lake
from pipeline.stores.lake.tables import SCHEMAS

__all__ = ["SCHEMAS", "Cleared", "Compaction", "Lake"]
