import os
import sqlite3
import stat
import unicodedata
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.stores.vault import (
    Vault,
    VaultKeyError,
    count_users,
    load_key,
    make_key,
    parse_key,
    verify_vault,
)
from tests.raising import raises

KEY = bytes(range(32))


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "vault.db", KEY, create=True)


def test_a_person_has_one_pseudonym(vault, tmp_path):
    first = vault.pseudonyms(["anna", "bert", "anna"])
    assert set(first) == {"anna", "bert"}
    assert len(set(first.values())) == 2
    again = Vault(tmp_path / "vault.db", KEY).pseudonyms(["bert", "carl", "anna"])
    assert {name: again[name] for name in first} == first
    assert len(vault) == 3


def test_pseudonyms_reveal_nothing(tmp_path):
    one = Vault(tmp_path / "one.db", KEY, create=True).pseudonyms(["anna"])["anna"]
    two = Vault(tmp_path / "two.db", KEY, create=True).pseudonyms(["anna"])["anna"]
    assert one != two  # random, not derived: the key alone does not lead to it
    assert one.isascii()
    assert one.isalnum()
    assert len(one) == 27


def test_two_spellings_are_one_person(vault):
    spelled = [unicodedata.normalize(form, "josé") for form in ("NFC", "NFD")]
    assert spelled[0] != spelled[1]
    pseudonyms = vault.pseudonyms(spelled)
    assert pseudonyms[spelled[0]] == pseudonyms[spelled[1]]
    assert vault.lookup([spelled[1]]) == {spelled[1]: pseudonyms[spelled[0]]}
    assert vault.reveal([pseudonyms[spelled[0]]]) == {pseudonyms[spelled[0]]: spelled[0]}


def test_lookup_makes_no_pseudonym(vault):
    vault.pseudonyms(["anna"])
    assert list(vault.lookup(["anna", "bert"])) == ["anna"]
    assert len(vault) == 1


def test_reveal_is_the_way_back(vault):
    names = [f"person-{n}" for n in range(1201)] + ["", "名前", "a'b\"; DROP TABLE people"]
    given = vault.pseudonyms(names)
    assert vault.reveal(list(given.values())) == {p: name for name, p in given.items()}


def test_a_pseudonym_without_an_entry_is_an_error(vault):
    [anna] = vault.pseudonyms(["anna"]).values()
    with raises("vault.pseudonym_missing"):
        vault.reveal([anna, "unobody"])


@pytest.mark.parametrize("left", [None, b""])
def test_reading_creates_no_vault(tmp_path, left):
    path = tmp_path / "vault.db"
    if left is not None:
        path.write_bytes(left)
    with raises("vault.missing"):
        Vault(path, KEY)
    assert count_users(path) == 0
    verify_vault(path)
    assert (path.read_bytes() if path.exists() else None) == left
    # A process that was killed before its first commit leaves an empty file.
    assert len(Vault(path, KEY, create=True)) == 0


def test_users_are_counted_without_the_key(vault):
    vault.pseudonyms(["anna", "bert"])
    assert count_users(vault.path) == len(vault) == 2


def test_a_flipped_bit_of_a_lookup_hash_is_an_error(vault):
    """The user would be a new one, and would get a second pseudonym."""
    vault.pseudonyms([f"user-{n}" for n in range(20)])
    [key] = vault._keys(["user-7"]).values()
    data = bytearray(vault.path.read_bytes())
    data[data.index(key) + 20] ^= 1
    verify_vault(vault.path)
    vault.path.write_bytes(data)
    with raises("vault.damaged"):
        verify_vault(vault.path)


def test_no_raw_id_lies_in_the_file(vault):
    vault.pseudonyms(["anna-lundqvist"])
    assert b"anna-lundqvist" not in vault.path.read_bytes()
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600


def test_another_key_is_refused_before_anything_is_written(vault):
    given = vault.pseudonyms(["anna"])
    before = vault.path.read_bytes()
    with raises("vault.wrong_key"):
        Vault(vault.path, bytes(32))
    assert vault.path.read_bytes() == before
    assert Vault(vault.path, KEY).lookup(["anna"]) == given
    assert issubclass(VaultKeyError, ConfigError)


@pytest.mark.parametrize("read", ["lookup", "pseudonyms"])
def test_entries_that_were_exchanged_between_users_are_not_returned(vault, read):
    vault.pseudonyms(["anna", "bert"])
    with sqlite3.connect(vault.path) as connection:
        (one, *first), (other, *second) = connection.execute("SELECT * FROM people").fetchall()
        connection.execute("DELETE FROM people")
        connection.executemany(
            "INSERT INTO people VALUES (?, ?, ?)", [(one, *second), (other, *first)]
        )
    connection.close()
    with raises("vault.entry_altered"):
        getattr(vault, read)(["anna"])
    assert len(vault) == 2


def test_an_altered_entry_is_not_revealed(vault):
    given = vault.pseudonyms(["anna", "bert"])
    with sqlite3.connect(vault.path) as connection:
        sealed = dict(connection.execute("SELECT pseudonym, sealed FROM people"))
        connection.execute(
            "UPDATE people SET sealed = ? WHERE pseudonym = ?",
            (sealed[given["bert"]], given["anna"]),
        )
    connection.close()
    with raises("vault.entry_altered"):
        vault.reveal([given["anna"]])


def test_a_file_that_is_no_vault_is_an_error(tmp_path):
    path = tmp_path / "vault.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with raises("vault.unusable"):
        Vault(path, KEY)


def test_a_damaged_schema_is_an_error(vault):
    # SQLite's message quotes the schema, and is not UTF-8 then.
    vault.path.write_bytes(vault.path.read_bytes().replace(b"WITHOUT", b"WITH\xe1UT"))
    with raises("vault.unusable"):
        Vault(vault.path, KEY)


def test_a_full_disk_is_named(vault, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Vault, "_pseudonyms", full)
    with raises("vault.unusable") as caught:
        vault.pseudonyms(["anna"])
    assert "no space left on device; free disk space" in caught.value.sentence


def test_a_vault_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with raises("vault.cannot_create"):
        Vault(tmp_path / "file" / "vault.db", KEY, create=True)


def test_a_crash_while_handing_out_leaves_the_vault_whole(vault, monkeypatch):
    vault.pseudonyms(["anna"])

    def entry(self, key, raw):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "_entry", entry)
        with pytest.raises(KeyboardInterrupt):
            vault.pseudonyms(["bert"])
    assert len(vault) == 1
    assert vault.pseudonyms(["bert"])


def test_a_key_is_made_once_and_kept_from_others(tmp_path):
    path = tmp_path / "secrets" / "vault.key"
    key = make_key(path)
    assert len(key) == 32
    assert load_key(path) == key
    assert parse_key(path.read_text()) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with raises("vault.key_exists"):
        make_key(path)
    assert load_key(path) == key


@pytest.mark.parametrize("fault", ["missing", "open to others", "a link", "short", "no base64"])
def test_a_bad_key_file_is_one_named_error(tmp_path, fault):
    path = tmp_path / "vault.key"
    if fault != "missing":
        make_key(path)
    if fault == "open to others":
        path.chmod(0o640)
    elif fault == "a link":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif fault == "short":
        path.write_text("c2hvcnQ=")
    elif fault == "no base64":
        path.write_bytes(os.urandom(44))
    with pytest.raises(VaultKeyError, match=r"vault's key"):
        load_key(path)


def test_a_key_of_another_length_is_refused(tmp_path):
    with raises("vault.key_length"):
        Vault(tmp_path / "vault.db", b"short")
    assert not (tmp_path / "vault.db").exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_key_that_is_no_regular_file_is_unreadable(tmp_path, make):
    """A pipe would be waited for."""
    make(tmp_path / "vault.key")
    with raises("vault.key_unreadable"):
        load_key(tmp_path / "vault.key")
