"""What all commits have in common: their options, and what makes one count."""

from __future__ import annotations

from typing import Any

from deltalake import CommitProperties, PostCommitHookProperties, Transaction

from pipeline.failpoints import failpoint
from pipeline.stores.lake.commit_integrity import CommitIntegrity


def options(txn: tuple[str, int] | None = None, *, retries: int | None = None) -> dict[str, Any]:
    """Return the options of a commit; `retries` after a conflict, None as the library does."""
    return {
        "commit_properties": CommitProperties(
            app_transactions=None if txn is None else [Transaction(*txn)],
            max_commit_retries=retries,
        ),
        # Old versions are what replays and audits read: the library must not expire them.
        "post_commithook_properties": PostCommitHookProperties(cleanup_expired_logs=False),
    }


def acknowledge(tail: CommitIntegrity, version: int) -> None:
    """Make a commit safe that was just made, and note so."""
    failpoint("committed")
    tail.acknowledge(version)
    failpoint("fsynced")
