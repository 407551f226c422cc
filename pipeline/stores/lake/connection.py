"""The options of every commit; what the lake's libraries raise as errors with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from pipeline.errors import ConcurrencyError, LakeError


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


@contextmanager
def lake_errors(table: str) -> Iterator[None]:
    """Turn what the libraries raise, panics included, into a `LakeError`."""
    try:
        yield
    except LakeError:
        raise
    except CommitFailedError as error:
        raise ConcurrencyError(
            "lake.conflict", f"lake table {table}: another writer came first: {error_text(error)}"
        ) from error
    except (OSError, DeltaError, pl.exceptions.PolarsError, ValueError) as error:
        raise LakeError("lake.unavailable", f"lake table {table}: {error_text(error)}") from error
    except BaseException as error:
        # Rust panics are no `Exception`, and their class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise LakeError(
            "lake.file_broken", f"lake table {table}: a file is broken: {error_text(error)}"
        ) from None


def error_text(error: BaseException) -> str:
    """Return the first line of what an error says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
