"""The lake: the Delta tables of a workspace, the only user of deltalake.

Here: reading (`reading`) and committing (`delta`); schemas and partitions (`tables`); commits that
are safe on the disk, and the detection of damaged ones (`commit_integrity`, `checksums`); fewer
files and a short log (`compaction`); repairs (`restoration`); rows of a commit (`row_digest`);
options and errors of deltalake (`connection`).
Not here: the meaning of a batch, a publication or a list (`workspace`, `serving`).
One more table is one more schema in `pipeline.columns` and one more entry of `tables.SCHEMAS`.
"""

from pipeline.stores.lake.compaction import Cleared, Compaction
from pipeline.stores.lake.delta import Lake
from pipeline.stores.lake.restoration import Restoration
from pipeline.stores.lake.tables import SCHEMAS

__all__ = ["SCHEMAS", "Cleared", "Compaction", "Lake", "Restoration"]
