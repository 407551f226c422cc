"""The lake: the Delta tables of a workspace, the one user of deltalake.

Here: `delta`, reading and committing; `tables`, their schemas and partitions; `commit_integrity`,
which makes a commit safe on the disk and finds one that is not, by `checksums`; `compaction`, which
keeps tables quick and small; `connection`, how deltalake is opened and fails.
Not here: what a batch, a publication or a list means.
"""

from pipeline.stores.lake.compaction import Cleared, Compaction
from pipeline.stores.lake.delta import Lake
from pipeline.stores.lake.tables import SCHEMAS

__all__ = ["SCHEMAS", "Cleared", "Compaction", "Lake"]
