"""Hostile files: the code that makes each, and its required outcome.

`REFUSED` files are set aside or wait; of the `TAKEN` ones only rows are refused; the `BIG` ones are
refused as well, and are many bytes once they are read. The table in `docs/INGEST.md` has the same
names and words.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HEADER = b"event_id,user_id,item_id,kind,value,timestamp\n"
AT = "2024-03-01T10:00:00Z"


@dataclass(frozen=True)
class Hostile:
    """A file of this name, written by `make`, and its end.

    Attributes
    ----------
    title
        Its name in the docs.
    reported
        Text that its sentence must hold; for a file that is taken, the reasons in quarantine.
    accepted, quarantined, duplicates
        Its rows, where it is taken.
    status
        ``set aside``, ``waits``, ``not read`` or ``taken``.
    shown
        Its name in the results, where that is another one.
    """

    title: str
    file: str
    make: Callable[[Path], object]
    reported: str = ""
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    status: str = field(default="set aside", kw_only=True)
    shown: str = field(default="", kw_only=True)


def row(name: str, user: str = "anna", item: str = "bread", value: str = "1") -> bytes:
    return f"{name},{user},{item},view,{value},{AT}\n".encode()


def line(name: str, **fields: object) -> bytes:
    one = {"event_id": name, "user_id": "anna", "item_id": "bread", "kind": "view", "timestamp": AT}
    return json.dumps(one | fields).encode() + b"\n"


def raw_line(name: str, user: bytes = b'"anna"', value: bytes = b"1", more: bytes = b"") -> bytes:
    return (
        b'{"event_id": "%s", "user_id": %s, "item_id": "x", "kind": "view", "value": %s, '
        b'"timestamp": "%s"%s}\n' % (name.encode(), user, value, AT.encode(), more)
    )


def csv(*rows: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(HEADER + b"".join(rows))


def data(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def parquet(**columns: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="zstd", write_statistics=False)
    return stream.getvalue()


def repeated(path: Path, first: bytes, again: bytes, times: int) -> None:
    with path.open("wb") as stream:
        stream.write(first)
        for _ in range(times):
            stream.write(again)


def bomb(path: Path, pack: Callable[[bytes], bytes]) -> None:
    """1 GiB of rows out of a few MB: packed parts one behind the other are one text."""
    part = row("e") * ((1 << 20) // len(row("e")))
    repeated(path, pack(HEADER), pack(part), 1024)


def zst(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content).to_pybytes()


def link(path: Path, hard: bool = False, target: str = "elsewhere.csv") -> None:
    other = path.parents[2] / target
    if not other.exists():
        other.write_bytes(HEADER + row("link"))
    path.hardlink_to(other) if hard else path.symlink_to(other)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # its whole path may be too long for an address
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inner.csv").write_bytes(HEADER + row("inner"))
    os.utime(path / "inner.csv", (1_000_000_000, 1_000_000_000))


def nest(path: Path) -> None:
    """Make nested folders whose path is longer than the system allows."""
    path.mkdir()
    at = os.open(path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=at)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def one_value(path: Path) -> None:
    fields = {key: ["1"] for key in ("event_id", "user_id", "item_id", "kind", "timestamp")}
    path.write_bytes(parquet(**fields, note=["a" * 400_000_000]))


def nested(path: Path) -> None:
    one = {"user_id": [["anna"]], "item_id": [{"a": "b"}], "kind": ["view"], "timestamp": [AT]}
    path.write_bytes(parquet(event_id=["nested"], **one))


def with_metadata(path: Path, key: str, value: str) -> None:
    one = {"user_id": ["anna"], "item_id": ["bread"], "kind": ["view"], "timestamp": [AT]}
    table = pa.table({"event_id": ["metadata"], **one})
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key: value})


def equal_rows(path: Path) -> None:
    """Runs cost nothing in the file, 200 bytes a value once they are read."""
    places = pa.nulls(10_000_000, pa.int32()).fill_null(0)
    column = pa.DictionaryArray.from_arrays(places, pa.array(["a" * 200]))
    names = ("event_id", "user_id", "item_id", "kind", "timestamp")
    pq.write_table(pa.table(dict.fromkeys(names, column)), path, row_group_size=10_000_000)


ROW = row("w").decode()
WIDE = b"c," * 999_999 + b"c\n"
KEYS = b"{" + b",".join(b'"c%d": 1' % n for n in range(50_000)) + b"}\n"
SOUND = parquet(user_id=["anna"] * 1000)
# Magic, a descriptor without a size, and a window of 2 TiB.
WINDOW = b"\x28\xb5\x2f\xfd\x00\xf8" + b"\x01\x00\x00"
REPEATED_KEY = raw_line("k1", more=b', "user_id": "bert"')
# Users with the ids and the claimed publications of an attacker.
IDS = ("' OR 1=1 --", "x' OR '1'='1", "../../x", "*")
CLAIMED = HEADER.replace(b"\n", b",publication_id\n")
HIDDEN_KEY = raw_line("k2", more=b', "user\\u005fid": "bert"')

# Only root makes a device.
DEVICE = Hostile(
    "a device",
    "device.csv",
    lambda path: os.mknod(path, 0o020600, os.makedev(1, 5)),
    "is a device",
    status="not read",
)
REFUSED = (
    Hostile("a header of 10⁶ columns", "wide.csv", data(WIDE), "has 1,000,000 columns"),
    Hostile("a JSON object of 50,000 keys", "keys.jsonl", data(KEYS), "more than 256 different"),
    Hostile(
        "a Parquet file of 2,000 columns",
        "wide.parquet",
        data(parquet(**{f"c{n}": [1] for n in range(2000)})),
        "has 2,000 columns",
    ),
    Hostile("UTF-16 with a byte order mark", "utf16.csv",
            data((HEADER.decode() + ROW).encode("utf-16")), "it contains UTF-16 text"),
    Hostile("UTF-16 without one", "utf16le.csv",
            data((HEADER.decode() + ROW).encode("utf-16-le")), "is not UTF-8"),
    Hostile("big-endian UTF-16 without one", "utf16be.jsonl",
            data(line("w").decode().encode("utf-16-be")), "is not UTF-8"),
    Hostile("Latin-1", "latin1.csv", csv("é,1,1,view,1,x\n".encode("latin-1")), "is not UTF-8"),
    Hostile("lines that end with a lone CR", "cr.csv",
            data((HEADER + row("w")).replace(b"\n", b"\r")), "must end with a line feed"),
    Hostile("JSON lines that end with a lone CR", "cr.jsonl",
            data((line("w") * 2).replace(b"\n", b"\r")), "no line can be read"),
    Hostile("a NUL byte", "nul.csv", csv(row("n", "an\0na")), "a NUL byte at line 2"),
    Hostile("a header that names a column twice", "twice.csv",
            data(b"user_id," + HEADER + b"bert," + row("w")), "names column 'user_id' twice"),
    Hostile("an open quote of 3 MiB", "quote.csv", csv(b'"' + b"a" * (3 << 20)),
            "the row at line 2 has more than 2,097,152 bytes"),
    Hostile("a gzip that is cut", "cut.csv.gz",
            data(gzip.compress((HEADER + row("w")) * 99)[:-6]), "the gzip data are cut short"),
    Hostile("a gzip with bytes after its end", "trailing.csv.gz",
            data(gzip.compress(HEADER + row("w")) + b"garbage"), "the gzip data are damaged"),
    Hostile("a Zstandard file with a window of 2 TiB", "window.csv.zst", data(WINDOW),
            "the zstd data are damaged"),
    Hostile("a Parquet file that is cut", "cut.parquet", data(SOUND[:-20]), "not a Parquet file"),
    Hostile("a Parquet file whose footer claims 4 GiB", "claims.parquet",
            data(SOUND[:-8] + struct.pack("<I", 0xFFFFFFF0) + b"PAR1"), "is not a Parquet file"),
    Hostile("a Parquet file with random bytes as its footer", "noise.parquet",
            data(b"PAR1" + b"\xff" * 4000 + struct.pack("<I", 4000) + b"PAR1"),
            "is not a Parquet file"),
    Hostile("a broken Arrow schema in Parquet", "arrow.parquet",
            lambda path: with_metadata(path, "ARROW:schema", "A" * 1000),
            "is not a Parquet file, or is cut short or damaged"),
    Hostile("a symbolic link", "link.csv", link, "is a link", status="not read"),
    Hostile("a link to a folder", "link-to-folder.csv",
            lambda path: path.symlink_to(path.parents[1]), "is a link", status="not read"),
    Hostile("a link to itself", "loop.csv", lambda path: path.symlink_to(path.name), "is a link",
            status="not read"),
    Hostile("a hard link", "hard.csv", lambda path: link(path, hard=True, target="hard.csv"),
            "has several names", status="not read"),
    Hostile("a named pipe", "pipe.csv", os.mkfifo, "is a named pipe", status="not read"),
    Hostile("a socket", "socket.csv", bind, "is a socket", status="not read"),
    DEVICE,
    Hostile("a name of 255 bytes, and nothing in it", f"{'n' * 251}.csv", data(b""), "is empty"),
    Hostile("a list and a struct as ids in Parquet", "nested.parquet", nested,
            "holds lists or objects, which are not ids", status="waits"),
    Hostile("more than 16 folders in one another", "nest", nest, "cannot be listed",
            status="waits", shown="d" * 200),
)  # fmt: skip

TAKEN = (
    Hostile("10⁵-deep JSON", "deep.jsonl",
            data(b'{"note": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n" + line("deep")),
            "broken_json", 1, 1, status="taken"),
    Hostile("33-deep JSON", "deeper.jsonl",
            data(b'{"note": ' + b"[" * 33 + b"]" * 33 + b"}\n" + line("33")),
            "nested_too_deep", 1, 1, status="taken"),
    Hostile("a row of 2 MiB", "long-row.csv", csv(row("l1", "x" * (2 << 20)), row("l2")),
            "row_too_long", 1, 1, status="taken"),
    Hostile("short and long rows", "fields.csv", csv(b"s1,anna\n", row("s2"), b"x," + row("s3")),
            "wrong_number_of_fields", 1, 2, status="taken"),
    Hostile("lone CRs below the header", "cr-below.csv",
            csv((row("c1") + row("c2")).replace(b"\n", b"\r")),
            "wrong_number_of_fields", 0, 1, status="taken"),
    Hostile("a repeated header", "again.csv", csv(row("h1"), HEADER, row("h2")),
            "header_repeated", 2, 1, status="taken"),
    Hostile("ids like `007`", "zeros.csv", csv(row("007", "007", "007"), row("7", "7", "7")),
            accepted=2, status="taken"),
    Hostile("`007` as a number of JSON", "zeros.jsonl",
            data(line("008", user_id="007") + raw_line("009", user=b"007")),
            "broken_json", 1, 1, status="taken"),
    Hostile("`1e400`, `NaN`, `Infinity`", "numbers.csv",
            csv(*(row(f"v{n}", value=v)
                  for n, v in enumerate(("1e400", "-inf", "Infinity", "NaN", "0x1", "1e12")))),
            "value_negative, value_too_large, value_unparsable", 1, 5, status="taken"),
    Hostile("`1e400`, `NaN`, `Infinity` in JSON", "numbers.jsonl",
            data(b"".join(raw_line(f"j{n}", value=v) for n, v in
                          enumerate((b"1e400", b"NaN", b"Infinity", b'"1e400"', b"1e12")))),
            "broken_json, value_too_large", 1, 4, status="taken"),
    Hostile("a number of 10⁵ digits", "digits.jsonl",
            data(raw_line("d1", user=b"9" * 100_000) + line("d2")),
            "broken_json", 1, 1, status="taken"),
    Hostile("doubled JSON keys", "doubled.jsonl",
            data(REPEATED_KEY + HIDDEN_KEY + line("k3", note={"a": 1})),
            "doubled_key", 1, 2, status="taken"),
    Hostile("half a surrogate pair in JSON", "half.jsonl",
            data(raw_line("u1", user=b'"\\ud83d"') + raw_line("u2", user=b'"\\ud83d\\ude00"')),
            "broken_json", 1, 1, status="taken"),
    Hostile("NUL and control characters in ids", "controls.jsonl",
            data(line("i1", user_id="a\0") + line("i\n2") + line("i3", item_id="\x1b[31m")),
            "event_id_unprintable, item_id_unprintable, user_id_unprintable", 0, 3,
            status="taken"),
    Hostile("zero-width and bidirectional characters in ids", "formats.csv",
            csv(row("f1", "a\u200bnna"), row("f\u202e2"), row("f3", item="item\ufeff004")),
            "event_id_unprintable, item_id_unprintable, user_id_unprintable", 0, 3,
            status="taken"),
    Hostile("ids of more than 256 bytes", "long-ids.csv",
            csv(row("x" * 257), row("y1", "ä" * 129), row("y2", item="x" * 257),
                row("y3", "x" * 256)),
            "event_id_too_long, item_id_too_long, user_id_too_long", 1, 3, status="taken"),
    Hostile("ids that are equal in NFC", "nfc.csv",
            csv(row("z1", "Zoë"), row("z2", "Zoe\u0308"), row("é"), row("e\u0301")),
            accepted=3, duplicates=1, status="taken"),
    Hostile("ids that are SQL, paths or `*`", "sql.csv",
            data(CLAIMED + b"".join(row(f"sql{n}", user)[:-1] + f",{user}\n".encode()
                                    for n, user in enumerate(IDS))),
            "user_id_reserved", 3, 1, status="taken"),
    Hostile("ids with outer white space and no-break spaces", "spaces.csv",
            csv(row("w1", "a b"), row("w2", " a\u00a0b\t"), row("w3", "\u3000a\u202fb")),
            accepted=3, status="taken"),
    Hostile("words for a missing id", "missing.csv",
            csv(row("m1", "nan"), row("m2", "(not set)"), row("m3", item=" N/A "),
                row("m4", " "), row("null"), row("m5", "nana")),
            "item_id_missing, user_id_missing", 2, 4, status="taken"),
    Hostile("ids as floats", "floats.csv",
            csv(row("q1", "7.0"), row("q2", "007.0"), row("q3", "1e3"), row("q4", "12E5")),
            accepted=4, status="taken"),
    Hostile("ids that have lost digits", "digits.csv",
            csv(row("8.71E+12"), row("g1", "1e+16"), row("g2", item="9007199254740992.0"),
                row("g3", "9007199254740991.0")),
            "event_id_lost_digits, item_id_lost_digits, user_id_lost_digits", 1, 3,
            status="taken"),
    Hostile("such ids as numbers of JSON", "lost.jsonl",
            data(raw_line("n1", user=b"9007199254740993.0") + raw_line("n2", user=b"1e22")
                 + raw_line("n3", user=b'"1e22"') + raw_line("n4", user=b"9007199254740993")),
            "user_id_lost_digits", 2, 2, status="taken"),
    Hostile("one list among other ids", "some.jsonl",
            data(line("o1", item_id=["a", "b"]) + b"".join(line(f"one{n}") for n in range(9))),
            "item_id_list", 9, 1, status="taken"),
    Hostile("5 MiB of broken pandas metadata in Parquet", "pandas.parquet",
            lambda path: with_metadata(path, "pandas", "{" * (5 << 20)), accepted=1,
            status="taken"),
    Hostile("several gzip members in one file", "parts.csv.gz",
            data(gzip.compress(HEADER + row("p1")) + gzip.compress(row("p2"))),
            accepted=2, status="taken"),
    Hostile("a folder with the name of a file", "folder.csv", folder, accepted=1,
            status="taken", shown="inner.csv"),
    Hostile("a name with a line feed and a colour", "red\n\x1b[31m.csv", csv(row("r1")),
            accepted=1, status="taken", shown="red\\n\\x1b[31m.csv"),
    Hostile("a name with a bidirectional character", "bidi\u202evsc.csv", csv(row("r2")),
            accepted=1, status="taken", shown="bidi\\u202evsc.csv"),
    Hostile("a name of 255 bytes", f"{'m' * 251}.csv", csv(row("r3")), accepted=1, status="taken"),
    Hostile("a name that is an option", "-rf.csv", csv(row("r4")), accepted=1, status="taken"),
    Hostile("a name with commands of a shell", "$(touch pwned);`touch pwned`.csv", csv(row("r5")),
            accepted=1, status="taken"),
    Hostile("a name that is not UTF-8", os.fsdecode(b"bytes-\xff.csv"), csv(row("b1")),
            accepted=1, status="taken", shown="bytes-\\udcff.csv"),
)  # fmt: skip

BIG = (
    Hostile("a gzip of a few MB that expands to 1 GB", "bomb.csv.gz",
            lambda path: bomb(path, gzip.compress), "expands more than 200-fold"),
    Hostile("a Zstandard file of that kind", "bomb.csv.zst",
            lambda path: bomb(path, zst), "expands more than 200-fold"),
    Hostile("a line of 1 GB", "line.csv",
            lambda path: repeated(path, HEADER, b"a" * (1 << 20), 1024),
            "the row at line 2 has more than 2,097,152 bytes"),
    Hostile("30 million rows that are broken", "broken.csv",
            lambda path: repeated(path, HEADER, b"a\n" * (1 << 19), 60),
            "more than 200,000 rows that cannot be read"),
    Hostile("4 million rows without content", "nothing.jsonl",
            lambda path: repeated(path, line("n"), b'{"a": 1}\n' * (1 << 18), 16),
            "has more than 200,000 bad rows"),
    Hostile("a Parquet file with a value of 400 MB", "value.parquet",
            one_value, "cannot be read within the limits"),
    Hostile("a Parquet file of 10 million equal rows", "rows.parquet",
            equal_rows, "divide the file"),
)  # fmt: skip
