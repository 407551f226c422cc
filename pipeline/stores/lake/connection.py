"""Options of commits, and errors of the lake's libraries.

Guarantees: a Rust panic is raised as `LakeError`, and a conflict between writers as
`ConcurrencyError`; a commit never expires the log of older versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from pipeline.errors import ConcurrencyError, LakeError
from pipeline.stores.disk import fault_text


def options(txn: tuple[str, int] | None = None, *, retries: int | None = None) -> dict[str, Any]:
    """Return the options of a commit for deltalake.

    Parameters
    ----------
    txn
        (application, number), written with the commit.
    retries
        Attempts after a conflict; None for the library's default.
    """
    return {
        "commit_properties": CommitProperties(
            app_transactions=None if txn is None else [Transaction(*txn)],
            max_commit_retries=retries,
        ),
        # Replays and audits read old versions, so the library must not expire their log.
        "post_commithook_properties": PostCommitHookProperties(cleanup_expired_logs=False),
    }


@contextmanager
def lake_errors(table: str) -> Iterator[None]:
    """Turn errors of the libraries, panics included, into a `LakeError`.

    Raises
    ------
    ConcurrencyError
        ``lake.conflict``: another writer has committed.
    LakeError
        ``lake.unavailable``; ``lake.file_broken``: a library panicked on a damaged file.
    """
    try:
        yield
    except LakeError:
        raise
    except CommitFailedError as error:
        raise ConcurrencyError(
            "lake.conflict",
            f"lake table {table}: another process has committed: {error_text(error)}; start again",
        ) from error
    except OSError as error:
        raise LakeError("lake.unavailable", f"lake table {table}: {fault_text(error)}") from error
    except (DeltaError, pl.exceptions.PolarsError, ValueError) as error:
        raise LakeError(
            "lake.unavailable",
            f"lake table {table}: {error_text(error)}; correct the cause, such as a full disk, or "
            "restore the lake from a backup",
        ) from error
    except BaseException as error:
        # A Rust panic is not an `Exception`, and its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise LakeError(
            "lake.file_broken",
            f"lake table {table}: a file is damaged: {error_text(error)}; restore the lake from a "
            "backup",
        ) from None


def error_text(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
