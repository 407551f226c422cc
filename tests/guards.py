"""Remove each guard of exactly once alone, and check that its test fails.

    .venv/bin/python tests/guards.py [NAME ...]

A guard that no test misses is none. Each row below takes one guard out of a copy of the code (a
line, a condition) and runs the one test that is there for it: all tests must pass before, and each
must fail without its guard. The working tree is not touched. Prints a row a guard; exits with 1 if
a test stayed green, or was red before anything was broken. `make test-slow` does the same.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_COPIED: Final = ("pipeline", "dags", "tests", "docs", "benchmarks", "pyproject.toml", "README.md")
SECONDS: Final = 600


@dataclass(frozen=True)
class Guard:
    """A guard: its name, its code, the code without it, and the test that must then fail."""

    name: str
    file: str
    code: str
    broken: str
    test: str


_LAKE = "tests/unit/stores/lake/test_lake.py"
_RACES = "tests/crash/test_ingest_races.py"
_HOSTILE = "tests/integration/test_hostile_files.py"
_WAITING = "tests/unit/steps/ingest/test_waiting.py"
_FOREIGN = "tests/unit/steps/ingest/test_foreign_files.py"
_UPKEEP = "tests/unit/stores/lake/test_compaction.py"
_POINTS = "tests/crash/test_failpoints.py"

GUARDS: Final = (
    Guard(
        "same bytes are taken in once",
        "pipeline/steps/ingest/ingest.py",
        "return digest in keys or self.batches.seen(table, digest)",
        "return False",
        f"{_RACES}::test_the_same_under_another_name_recompressed_or_reordered_adds_nothing",
    ),
    Guard(
        "a commit has a number",
        "pipeline/stores/lake/delta.py",
        "if txn is not None and last is not None and txn[1] <= last:",
        "if False:",
        f"{_LAKE}::test_a_transaction_is_written_once",
    ),
    Guard(
        "a writer starts from a version",
        "pipeline/stores/lake/delta.py",
        "if after is not None and now != after:",
        "if False:",
        f"{_LAKE}::test_a_writer_that_was_overtaken_writes_nothing",
    ),
    Guard(
        "an altered file of a killed writer is not made valid",
        "pipeline/stores/lake/commit_integrity.py",
        "        if not holds:",
        "        if False:",
        f"{_LAKE}::test_a_killed_writer_does_not_make_an_altered_file_valid",
    ),
    Guard(
        "one ingest at a time",
        "pipeline/steps/ingest/ingest.py",
        'ws.lake.lock("ingest"),',
        'ws.lake.lock("ingest", shared=True),',
        f"{_RACES}::test_a_second_ingest_is_refused_while_the_first_one_sleeps",
    ),
    Guard(
        "what a crash left open is carried out",
        "pipeline/stores/batches.py",
        "if open_intents.height:",
        "if False:",
        f"{_POINTS}::test_killed_there_and_started_again[committed-0]",
    ),
    Guard(
        "the intent comes before the rows",
        "pipeline/stores/batches.py",
        "        self._note(intents, BatchStatus.INTENT)\n        if not",
        "        if not",
        f"{_POINTS}::test_killed_there_and_started_again[committed-0]",
    ),
    Guard(
        "the rows of one at work stay",
        "pipeline/stores/batches.py",
        "                draft.rename(target)\n",
        "                shutil.rmtree(target, ignore_errors=True)\n"
        "                draft.rename(target)\n",
        f"{_RACES}::test_rows_of_a_running_ingest_are_not_removed",
    ),
    Guard(
        "the first of two with one id counts",
        "pipeline/steps/ingest/bundle.py",
        "conflicts = conflicting(repeats, pl.concat([stored, fresh.select(CONTENT)]))",
        "conflicts = repeats.clear()",
        f"{_RACES}::test_of_two_events_with_one_id_the_first_counts_and_the_other_is_quarantined",
    ),
    Guard(
        "a file that grows waits",
        "pipeline/steps/ingest/ingest.py",
        "listed = landed(ws.home, current.at - _STILL_WRITTEN)",
        "listed = landed(ws.home, current.at)",
        f"{_RACES}::test_a_file_that_still_grows_is_taken_when_it_is_whole",
    ),
    Guard(
        "a move is looked at again",
        "pipeline/steps/ingest/landing.py",
        "not _is_same(self.target, self.new, self.seen):\n            _move(",
        "False:\n            _move(",
        f"{_RACES}::test_a_file_replaced_in_the_blink_before_it_is_moved_comes_back",
    ),
    Guard(
        "a copied file is looked at again before it is removed",
        "pipeline/steps/ingest/landing.py",
        "if not _is_same(self.source, hidden, self.seen):",
        "if False:",
        f"{_WAITING}::test_what_replaces_a_file_while_it_is_copied_comes_back",
    ),
    Guard(
        "a killed reader is no property of a file",
        "pipeline/steps/ingest/read_file.py",
        "        except ChildKilled:\n            raise\n",
        "",
        f"{_WAITING}::test_a_file_whose_reader_is_killed_waits_and_the_others_go_on",
    ),
    Guard(
        "a clock does not go back",
        "pipeline/steps/ingest/ingest.py",
        "if newest is not None and at < newest:",
        "if False:",
        f"{_WAITING}::test_a_clock_before_the_last_ingest_is_refused",
    ),
    Guard(
        "links are not followed",
        "pipeline/steps/ingest/landing.py",
        '        return "is a link"',
        "        return None",
        f"{_HOSTILE}::test_an_entry_that_is_not_a_file_stays_in_its_place",
    ),
    Guard(
        "a link between check and open is not followed",
        "pipeline/steps/ingest/landing.py",
        "os.O_RDONLY | os.O_NOFOLLOW |",
        "os.O_RDONLY |",
        f"{_FOREIGN}::test_a_replacement_between_check_and_open_is_not_read",
    ),
    Guard(
        "a folder that becomes a link is not entered",
        "pipeline/steps/ingest/landing.py",
        "os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=handle)",
        "os.open(part, FOLDER, dir_fd=handle)",
        f"{_FOREIGN}::test_a_folder_that_becomes_a_link_after_the_listing_is_not_entered",
    ),
    Guard(
        "a reason is not written through a link",
        "pipeline/steps/ingest/landing.py",
        'f"{digest}.reason.txt"',
        'f"{path.name}.reason.txt"',
        f"{_FOREIGN}::test_a_rejected_file_is_named_by_its_checksum_and_its_reason_names_the_original",
    ),
    Guard(
        "a reader has so much memory",
        "pipeline/workspace/child_process.py",
        "resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))",
        "pass",
        "tests/unit/workspace/test_child_process.py",
    ),
    Guard(
        "a commit that is cut is seen",
        "pipeline/stores/lake/commit_integrity.py",
        "        except ValueError:\n            actions = []\n        if not actions:",
        "        except ValueError:\n            actions = []\n        if False:",
        f"{_LAKE}::test_a_cut_last_commit_is_an_error",
    ),
    Guard(
        "a commit that is lost is seen",
        "pipeline/stores/lake/commit_integrity.py",
        "if line is not None and line.version > last:",
        "if False:",
        f"{_LAKE}::test_a_lost_last_commit_is_an_error",
    ),
    Guard(
        "a flipped bit is seen",
        "pipeline/stores/lake/commit_integrity.py",
        "if actual != expected:",
        "if False:",
        "tests/integration/test_damage.py::test_a_flipped_bit_of_an_older_data_file_ends_the_night",
    ),
    Guard(
        "a data file without bytes is seen",
        "pipeline/stores/lake/commit_integrity.py",
        "if not path.is_file() or path.stat().st_size != size:",
        "if False:",
        f"{_LAKE}::test_a_file_without_bytes_is_no_panic",
    ),
    Guard(
        "what has no sum is not trusted",
        "pipeline/stores/lake/commit_integrity.py",
        "for file in sorted(wanted - sums.keys() - new.keys()):",
        "for file in ():",
        f"{_LAKE}::test_an_older_file_without_a_sum_is_not_trusted",
    ),
    Guard(
        "lost sums are not made anew",
        "pipeline/stores/lake/commit_integrity.py",
        "if len(missing) > 1:",
        "if False:",
        f"{_LAKE}::test_lost_sums_are_not_made_anew",
    ),
    Guard(
        "a lake that is gone is no empty one",
        "pipeline/workspace/agreement.py",
        'if entries and lake.version("batches") is None:',
        "if False:",
        f"{_RACES}::test_a_lake_that_is_gone_is_no_empty_one",
    ),
    Guard(
        "commits are forced to the disk",
        "pipeline/stores/lake/commit_integrity.py",
        "        sync(*sorted({path.parent for path in paths} | {self._path, self._root}))\n",
        "",
        "tests/crash/test_fsync.py",
    ),
    Guard(
        "the spool is forced to the disk",
        "pipeline/stores/batches.py",
        "                    sync(path)\n",
        "",
        "tests/crash/test_fsync.py",
    ),
    Guard(
        "lists are read back before the swap",
        "pipeline/workspace/publications.py",
        "if publish.lists_sum(_staged(ws, name)) != expected:",
        "if False:",
        "tests/integration/test_damage.py"
        "::test_no_night_points_users_to_lists_that_did_not_come_back",
    ),
    Guard(
        "a patch goes live behind its base alone",
        "pipeline/steps/feedback/foldin.py",
        '            serving.check_patch(self.ws.lake.read("publications"), row)\n',
        "",
        "tests/integration/test_foldin.py::test_a_patch_for_a_replaced_base_is_made_again",
    ),
    Guard(
        "pinned versions stay",
        "pipeline/stores/lake/compaction.py",
        "            for version in kept:\n                self._commits.checkpoint(version)\n"
        "                needed |= self._lake.files(self._table, version)\n",
        "",
        f"{_UPKEEP}::test_a_pinned_version_reads_as_it_did",
    ),
    Guard(
        "a ledger's line is written once",
        "pipeline/stores/ledger.py",
        'if entry["key"] == key:',
        "if False:",
        "tests/unit/stores/test_ledger.py::test_a_key_is_written_once",
    ),
    Guard(
        "a flood is capped before weights",
        "pipeline/data/features.py",
        "capped_events.filter(place < config.max_events_per_user_day)",
        "capped_events",
        "tests/integration/test_flood.py",
    ),
)


def copy_to(folder: Path) -> None:
    """Copy the needed files, compiled so that a change is recognised by content, not by age."""
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis", "*.pyc")
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)
    by_content = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder / "pipeline", quiet=1, invalidation_mode=by_content)


def run_tests(folder: Path, *tests: str) -> tuple[bool, str]:
    """Run tests in a copy; returns whether they passed, and the first error."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [*command, *tests],
        cwd=folder,
        env={**env, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    failed = re.findall(r"^(?:E  +|FAILED |ERROR )(.*)", done.stdout, re.M)
    return done.returncode == 0, failed[0] if failed else ""


@contextmanager
def taken_out(guard: Guard, folder: Path) -> Iterator[None]:
    """Break a guard in a copy for a while."""
    path = folder / guard.file
    text = path.read_text("utf-8")
    path.write_text(text.replace(guard.code, guard.broken), "utf-8")
    try:
        yield
    finally:
        path.write_text(text, "utf-8")


def main(names: list[str]) -> None:
    chosen = [guard for guard in GUARDS if not names or guard.name in names]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="nightjar-guards-") as root:
        folder = Path(root).resolve()
        copy_to(folder)
        passed, error = run_tests(folder, *{guard.test for guard in chosen})
        if not passed:
            raise SystemExit(f"red before anything was broken: {error}")
        print("| without the guard | its test | says |\n| --- | --- | --- |")
        for guard in chosen:
            with taken_out(guard, folder):
                green, error = run_tests(folder, guard.test)
            wrong += green
            test = guard.test.removeprefix("tests/")
            verdict = "**green**" if green else f"`{error[:100]}`"
            print(f"| {guard.name} | `{test}` | {verdict} |", flush=True)
    if wrong:
        raise SystemExit(f"{wrong} of {len(chosen)} guards are not guarded")


if __name__ == "__main__":
    main(sys.argv[1:])
