"""Failures of the file system keep their id and reason; bytes and folders reach the disk."""

import errno
import hashlib
import os

import pytest

from pipeline.errors import StorageError
from pipeline.stores.disk import fault_text, sha256, storage_errors, sync, write_synced
from tests.raising import raises


def test_a_failure_has_the_id_the_sentence_and_the_reason_of_the_system(tmp_path):
    with pytest.raises(StorageError) as error, storage_errors("storage.cannot_read", "no x"):
        (tmp_path / "x").read_bytes()
    assert error.value.id == "storage.cannot_read"
    assert error.value.sentence.startswith("no x: no such file or directory; ")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space"), "no space left on device; free disk space or inodes"),
        (OSError(errno.EACCES, "Permission denied"), "permission denied; correct the permissions"),
        (OSError(errno.EIO, "Input/output error"), "input/output error; check the disk"),
        (OSError("a library's own text"), "a library's own text; check the path and"),
    ],
)
def test_a_failure_of_the_system_has_a_next_step(error, text):
    assert fault_text(error).startswith(text)


def test_other_errors_pass_unchanged():
    with raises("run.no_file"), storage_errors("storage.cannot_read", "no x"):
        raise StorageError("run.no_file", "no file")
    with pytest.raises(ValueError, match="other"), storage_errors("storage.cannot_read", "no x"):
        raise ValueError("other")


def test_bytes_are_on_the_disk_before_the_file_is_closed(tmp_path, monkeypatch):
    path, written = tmp_path / "x", []
    monkeypatch.setattr(os, "fsync", lambda _: written.append(path.read_bytes()))
    with path.open("wb") as file:
        write_synced(file, b"abc")
        assert written == [b"abc"]
    sync(path, tmp_path)
    assert len(written) == 3
    assert sha256(path) == hashlib.sha256(b"abc").hexdigest()
