"""Options of commits, and errors of the lake's libraries.

Guarantees: a Rust panic is raised as `LakeError`, and a conflict between writers as
`ConcurrencyError`; a full disk is named as such; a commit never expires the log of older versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from pipeline.errors import ConcurrencyError, LakeError, NightjarError
from pipeline.stores.disk import fault_text, is_panic, machine_error

_LIBRARY_ERRORS: Final = (OSError, DeltaError, pl.exceptions.PolarsError, ValueError)


def options(
    numbers: Mapping[str, int] | None = None,
    *,
    notes: dict[str, str] | None = None,
    retries: int | None = None,
) -> dict[str, Any]:
    """Return the options of a commit for deltalake.

    Parameters
    ----------
    numbers
        Transaction numbers by application, written with the commit.
    notes
        Further information that the log entry of the commit holds.
    retries
        Attempts after a conflict; None for the library's default.
    """
    return {
        "commit_properties": CommitProperties(
            custom_metadata=notes,
            app_transactions=[Transaction(*number) for number in (numbers or {}).items()] or None,
            max_commit_retries=retries,
        ),
        # Replays and audits read old versions, so the library must not expire their log.
        "post_commithook_properties": PostCommitHookProperties(cleanup_expired_logs=False),
    }


@contextmanager
def lake_errors(table: str, folder: Path | None = None) -> Iterator[None]:
    """Turn errors of the libraries, panics included, into a `LakeError`.

    Parameters
    ----------
    table
        Name of the table.
    folder
        Folder of a table that is written.

    Raises
    ------
    ConcurrencyError
        ``lake.conflict``: another writer has committed.
    LakeError
        ``lake.unavailable``; ``lake.file_broken``: a library panicked on a damaged file.
    """
    try:
        yield
    except NightjarError:
        raise
    except BaseException as error:
        if not is_panic(error) and not isinstance(error, _LIBRARY_ERRORS):
            raise
        if isinstance(error, CommitFailedError) and machine_error(error) is None:
            raise ConcurrencyError(
                "lake.conflict",
                f"lake table {table}: another process has committed: {error_text(error)}; start "
                "again",
            ) from error
        if isinstance(error, OSError) or machine_error(error, folder) is not None:
            reason = fault_text(error, folder)
            raise LakeError("lake.unavailable", f"lake table {table}: {reason}") from error
        if is_panic(error):
            raise LakeError(
                "lake.file_broken",
                f"lake table {table}: a file is damaged: {error_text(error)}; restore the lake "
                "from a backup",
            ) from None
        raise LakeError(
            "lake.unavailable",
            f"lake table {table}: {error_text(error)}; correct the cause, or restore the lake "
            "from a backup",
        ) from error


def error_text(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
