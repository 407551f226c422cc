"""The vault: pseudonyms of raw user ids, in a SQLite file beside the lake.

Guarantees:

* A user has one pseudonym. It is random, so it reveals nothing without the vault.
* Raw ids are stored encrypted (AES-GCM) and are looked up by a keyed hash.
* A wrong key raises before anything is written: a second set of pseudonyms for the same users
  cannot come about.
* Pseudonyms are on the disk before they are returned.
* A vault has a random id from its creation on, and gets another one with each new users, so that
  another vault with the same key is noticed, a copy that got other users included.
* A file that is missing or empty is created only on request; reading it raises.
* Lookup hash, pseudonym and raw id of an entry are bound to each other: every method opens the seal
  of the entries that it returns, so entries that were exchanged raise.
* An event id has one derived id, so that a repeated delivery gives the same one.
* Ids are compared in Unicode normalisation form C (NFC).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import itertools
import os
import secrets
import sqlite3
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.errors import ConfigError, StorageError
from pipeline.stores.disk import fault_text, machine_error, storage_errors, sync, write_synced

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CHUNK: Final = 500  # placeholders in one statement; SQLite's oldest limit is 999

_USERS: Final = "people"  # name of the table in existing files
_ID: Final = "id"
_DERIVES: Final = "derives event ids"
_NOTE: Final = "INSERT OR IGNORE INTO meta VALUES (?, x'01')"
_FORGET: Final = "DELETE FROM meta WHERE name = ?"
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS {_USERS} (
    lookup BLOB PRIMARY KEY, pseudonym TEXT NOT NULL UNIQUE, sealed BLOB NOT NULL
) WITHOUT ROWID;
"""


class _Entry(NamedTuple):
    """A row of the table of users."""

    lookup: bytes
    pseudonym: str
    sealed: bytes


class VaultKeyError(ConfigError):
    """The vault's key is missing, readable by others, or belongs to another vault."""


class Vault:
    """Pseudonyms of one workspace.

    Parameters
    ----------
    path
        The SQLite file.
    key
        32 bytes.
    create
        Create the file, with mode 0600, if it is missing or empty.

    Raises
    ------
    VaultKeyError
        ``vault.key_length``; ``vault.wrong_key``: the file was created with another key.
    StorageError
        ``vault.cannot_create``, ``vault.missing``, ``vault.unusable``
    """

    def __init__(self, path: Path, key: bytes, *, create: bool = False) -> None:
        if len(key) != KEY_BYTES:
            raise VaultKeyError(
                "vault.key_length",
                f"the vault's key has {len(key)} bytes; it must have {KEY_BYTES}; restore it from "
                "a backup",
            )
        self.path = path
        # One derived key per use, so that none can stand in for another.
        self._lookup_key = hmac.digest(key, b"nightjar/lookup", "sha256")
        self._seal = AESGCM(hmac.digest(key, b"nightjar/seal", "sha256"))
        self._event_key = hmac.digest(key, b"nightjar/event", "sha256")
        self._check = hmac.digest(key, b"nightjar/check", "sha256")
        if create:
            self._create()
        self._check_key()

    def __len__(self) -> int:
        """Return the number of users in the vault."""
        return count_users(self.path)

    @property
    def id(self) -> str:
        """Newest random id of the vault."""
        return vault_ids(self.path)[-1]

    def pseudonyms(self, raw: Sequence[str]) -> dict[str, str]:
        """Return ``{raw id: pseudonym}`` for all of `raw`; new users get a new pseudonym.

        The pseudonyms are on the disk when this returns, so every row that uses one can be
        translated back.

        Raises
        ------
        StorageError
            ``vault.entry_altered``
        """
        keys = self._keys(raw)
        with self._connection() as connection:
            # Locks the file for writing before the read, so that two processes cannot give one
            # user two pseudonyms.
            connection.execute("BEGIN IMMEDIATE")
            pseudonyms = self._pseudonyms(connection, keys.values())
            new = {key: user for user, key in keys.items() if key not in pseudonyms}
            connection.executemany(
                f"INSERT OR IGNORE INTO {_USERS} VALUES (?, ?, ?)",  # noqa: S608
                itertools.starmap(self._entry, new.items()),
            )
            pseudonyms |= self._pseudonyms(connection, new)
            if new:
                _add_id(connection)
            connection.execute("COMMIT")
        return {user: pseudonyms[key] for user, key in keys.items()}

    def lookup(self, raw: Sequence[str]) -> dict[str, str]:
        """Return ``{raw id: pseudonym}`` for the users in the vault.

        Raises
        ------
        StorageError
            ``vault.entry_altered``
        """
        keys = self._keys(raw)
        with self._connection() as connection:
            pseudonyms = self._pseudonyms(connection, keys.values())
        return {user: pseudonyms[key] for user, key in keys.items() if key in pseudonyms}

    def reveal(self, pseudonyms: Sequence[str]) -> dict[str, str]:
        """Return ``{pseudonym: raw id}`` for all of `pseudonyms`.

        Raises
        ------
        StorageError
            ``vault.entry_altered``; ``vault.pseudonym_missing``: one has no entry.
        """
        raw = self.lookup_pseudonyms(pseudonyms)
        if missing := len(set(pseudonyms)) - len(raw):
            raise StorageError(
                "vault.pseudonym_missing",
                f"the vault {self.path} has no entry for {missing:,} of {len(set(pseudonyms)):,} "
                "users of the lake: it is older than the lake, or belongs to another workspace; "
                "restore it from a backup that is not older than the lake",
            )
        return raw

    def lookup_pseudonyms(self, pseudonyms: Sequence[str]) -> dict[str, str]:
        """Return ``{pseudonym: raw id}`` for the pseudonyms in the vault.

        Raises
        ------
        StorageError
            ``vault.entry_altered``
        """
        with self._connection() as connection:
            entries = list(_select(connection, "pseudonym", dict.fromkeys(pseudonyms)))
        return {entry.pseudonym: self._open_seal(entry) for entry in entries}

    def _pseudonyms(
        self, connection: sqlite3.Connection, keys: Iterable[bytes]
    ) -> dict[bytes, str]:
        """Return ``{lookup hash: pseudonym}`` after opening each seal."""
        entries = list(_select(connection, "lookup", keys))
        for entry in entries:
            self._open_seal(entry)
        return {entry.lookup: entry.pseudonym for entry in entries}

    def event_id(self, raw: str) -> str:
        """Return the derived id of an event: a keyed hash of its id."""
        return "e" + hmac.digest(self._event_key, _normalized(raw), "sha256").hex()[:32]

    @property
    def derives_event_ids(self) -> bool:
        """The stored choice of the workspace: True if its events have derived ids."""
        with self._connection() as connection:
            note = connection.execute("SELECT 1 FROM meta WHERE name = ?", (_DERIVES,)).fetchone()
            return note is not None

    def choose_event_ids(self, *, derived: bool) -> None:
        """Store whether the events of the workspace have derived ids."""
        if derived == self.derives_event_ids:
            return
        statement = _NOTE if derived else _FORGET
        with self._connection() as connection:
            connection.execute(statement, (_DERIVES,))

    def _keys(self, raw: Iterable[str]) -> dict[str, bytes]:
        return {
            user: hmac.digest(self._lookup_key, _normalized(user), "sha256")
            for user in dict.fromkeys(raw)
        }

    def _entry(self, lookup: bytes, raw: str) -> _Entry:
        text = base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
        pseudonym = f"u{text}"
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._seal.encrypt(nonce, _normalized(raw), lookup + pseudonym.encode())
        return _Entry(lookup, pseudonym, nonce + sealed)

    def _open_seal(self, entry: _Entry) -> str:
        nonce, text = entry.sealed[:_NONCE_BYTES], entry.sealed[_NONCE_BYTES:]
        # Without the lookup hash in the authenticated data, two users could be exchanged unnoticed.
        bound = entry.lookup + entry.pseudonym.encode()
        try:
            return self._seal.decrypt(nonce, text, bound).decode()
        except (InvalidTag, ValueError):  # a ValueError: the seal is shorter than a nonce
            raise StorageError(
                "vault.entry_altered",
                f"the entry of {entry.pseudonym} in {self.path} was altered; restore the vault "
                "from a backup",
            ) from None

    def _create(self) -> None:
        with storage_errors("vault.cannot_create", f"cannot create the vault {self.path}"):
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch(0o600)
            # A process that was killed in the transaction below leaves an empty file.
            if self.path.stat().st_size:
                return
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('check', ?)", (self._check,))
            _add_id(connection)
            connection.execute("COMMIT")

    def _check_key(self) -> None:
        if not _has_content(self.path):
            raise StorageError(
                "vault.missing",
                f"the vault {self.path} is missing or empty; no user has been ingested yet, and "
                "the first ingest creates it",
            )
        with self._connection() as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = 'check'").fetchone()
        if row is None or not hmac.compare_digest(bytes(row[0]), self._check):
            raise VaultKeyError(
                "vault.wrong_key",
                f"the key does not belong to the vault {self.path}; use the key that it was "
                "created with (secrets/vault.key, NIGHTJAR_VAULT_KEY or NIGHTJAR_VAULT_KEY_FILE)",
            )

    def _connection(self) -> AbstractContextManager[sqlite3.Connection]:
        return _connected(self.path)


def count_users(path: Path) -> int:
    """Return the number of users in a vault without its key; 0 for a missing or empty file.

    Raises
    ------
    StorageError
        ``vault.unusable``
    """
    if not _has_content(path):
        return 0
    with _connected(path) as connection:
        query = f"SELECT count(*) FROM {_USERS}"  # noqa: S608
        return int(connection.execute(query).fetchone()[0])


def vault_ids(path: Path) -> list[str]:
    """Return the ids of a vault without its key, oldest first; none for a missing or empty file.

    Raises
    ------
    StorageError
        ``vault.unusable``
    """
    if not _has_content(path):
        return []
    with _connected(path) as connection:
        return [bytes(value).hex() for _, value in _ids(connection)]


def _ids(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
    query = "SELECT name, value FROM meta WHERE name GLOB ? ORDER BY name"
    return connection.execute(query, (f"{_ID}*",)).fetchall()


def _add_id(connection: sqlite3.Connection) -> None:
    name = f"{_ID} {len(_ids(connection)):09}"
    connection.execute("INSERT INTO meta VALUES (?, ?)", (name, secrets.token_bytes(16)))


def verify_vault(path: Path) -> None:
    """Check the structure of the file as a whole, without the key of the vault.

    A flipped bit in a lookup hash would hide a user, who would then get a second pseudonym.

    Raises
    ------
    StorageError
        ``vault.unusable``, ``vault.damaged``
    """
    if not _has_content(path):
        return
    with _connected(path) as connection:
        [problem] = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        raise StorageError(
            "vault.damaged", f"the vault {path} is damaged; restore it from a backup"
        )


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection for one operation: SQLite forbids its use across threads and forks."""
    try:
        # Mode `rw` opens a file and never creates one.
        address = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(address, uri=True, timeout=60, isolation_level=None)
        try:
            # A rollback journal leaves one file without old pages; EXTRA also syncs the folder.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA secure_delete = ON")
            yield connection
        finally:
            connection.close()
    # A message of SQLite about a damaged schema quotes it, and may not be UTF-8 then.
    except (sqlite3.Error, UnicodeDecodeError) as error:
        reason = f"{error}; correct the cause, or restore the vault from a backup"
        if machine_error(error) is not None:
            reason = fault_text(error)
        raise StorageError("vault.unusable", f"cannot use the vault {path}: {reason}") from error


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def make_key(path: Path) -> bytes:
    """Create a key file (mode 0600, folder 0700) and return the key; never overwrites a file."""
    key = secrets.token_bytes(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            write_synced(file, base64.urlsafe_b64encode(key) + b"\n")
        sync(path.parent)
    except FileExistsError:
        raise VaultKeyError(
            "vault.key_exists",
            f"the key {path} exists, and keys are never overwritten; start again to use it",
        ) from None
    except OSError as error:
        raise VaultKeyError(
            "vault.key_cannot_create", f"cannot create the key {path}: {fault_text(error)}"
        ) from error
    return key


def load_key(path: Path) -> bytes:
    """Read a key file.

    Raises
    ------
    VaultKeyError
        ``vault.key_missing``, ``vault.key_unreadable`` (also for a link, folder or pipe),
        ``vault.key_permissions`` (readable by other users), ``vault.key_encoding``
    """
    try:
        # Without O_NONBLOCK the open of a pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise VaultKeyError(
            "vault.key_missing",
            f"the vault's key {path} is missing; restore it from a backup, or create a new "
            "workspace with `nightjar init`",
        ) from None
    except OSError as error:
        raise VaultKeyError(
            "vault.key_unreadable",
            f"cannot read the vault's key {path}: {fault_text(error)}",
        ) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise VaultKeyError(
            "vault.key_unreadable",
            f"the vault's key {path} is not a regular file; move it away, and restore the key from "
            "a backup",
        )
    with os.fdopen(handle, "rb") as file:
        if mode & 0o077:
            raise VaultKeyError(
                "vault.key_permissions",
                f"other users can read the vault's key {path}; run `chmod 600 {path}`",
            )
        text = file.read(1024)
    return parse_key(text.decode("ascii", errors="replace"))


def parse_key(text: str) -> bytes:
    """Decode a key: URL-safe base64 of 32 bytes, as in a key file."""
    try:
        key = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultKeyError(
            "vault.key_encoding",
            "the vault's key is not the URL-safe base64 of 32 bytes; restore secrets/vault.key "
            "from a backup, or correct NIGHTJAR_VAULT_KEY",
        )
    return key


def _normalized(raw: str) -> bytes:
    return unicodedata.normalize("NFC", raw).encode()


def _select(
    connection: sqlite3.Connection, column: str, values: Iterable[bytes | str]
) -> Iterator[_Entry]:
    """Yield the entries whose column is among the values."""
    remaining = iter(values)
    while chunk := list(itertools.islice(remaining, _CHUNK)):
        placeholders = ",".join("?" * len(chunk))
        query = f"SELECT lookup, pseudonym, sealed FROM {_USERS} WHERE {column} IN ({placeholders})"  # noqa: S608
        yield from itertools.starmap(_Entry, connection.execute(query, chunk))
