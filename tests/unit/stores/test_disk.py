"""Failures of the file system keep their id and reason; bytes and folders reach the disk."""

import errno
import hashlib
import os
import sqlite3
from types import SimpleNamespace

import pytest

from pipeline.errors import StorageError
from pipeline.stores.disk import (
    expected_failure,
    fault_text,
    machine_error,
    sha256,
    storage_errors,
    sync,
    write_synced,
)
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


class PanicException(BaseException):
    """Stands for the class of a Rust library."""


FULL = (errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(*FULL), errno.ENOSPC),
        (OSError("Generic error\n ↳ No space left on device (os error 28)\n"), errno.ENOSPC),
        (PanicException("called `unwrap()` on Os { message: 'Read-only file system' }"), 30),
        (sqlite3.OperationalError("database or disk is full"), errno.ENOSPC),
        (RuntimeError("can't start new thread"), errno.ENOMEM),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (ValueError("a bug"), None),
    ],
)
def test_the_machine_is_recognised_in_errors_of_libraries(error, code):
    assert machine_error(error) == code


def test_the_machine_is_recognised_behind_other_errors():
    with pytest.raises(ValueError, match="outer") as caught:
        try:
            raise PermissionError(errno.EACCES, "Permission denied")
        except PermissionError as error:
            raise ValueError("outer") from error
    assert machine_error(caught.value) == errno.EACCES
    with pytest.raises(StorageError) as failed, storage_errors("storage.cannot_read", "no x"):
        raise caught.value
    assert failed.value.sentence == "no x: permission denied; correct the permissions"


def test_a_full_file_system_explains_an_error_without_a_reason(tmp_path, monkeypatch):
    about = os.statvfs(tmp_path)
    error = ValueError("Generic LocalFileSystem error")
    assert machine_error(error, tmp_path) is None
    for exhausted in ({"f_bavail": 0}, {"f_favail": 0, "f_files": 9}):
        fields = {name: getattr(about, name) for name in ("f_bavail", "f_favail", "f_files")}
        full = SimpleNamespace(**fields | exhausted)
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda _, full=full: full)
            assert machine_error(error, tmp_path) == errno.ENOSPC
            assert fault_text(error, tmp_path).startswith("no space left on device; ")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), KeyError("x")])
def test_a_bug_and_an_end_are_no_failures(error):
    assert expected_failure(error) is None


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
