"""Writes docs/DAGS.md from the DAGs themselves: `python -m dags.document` (`--check` in CI).

Promises: every DAG, param and task of this folder is in the page, in the words that Airflow's own
page shows; `--check` writes nothing and fails when the page is stale.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script: Python put dags/ there instead
    sys.path.insert(0, str(ROOT))

from dags import environment  # noqa: E402

PAGE = ROOT / "docs" / "DAGS.md"
HEAD = """\
# The DAGs

Written by `python -m dags.document` from the files in `dags/`; `make test` fails when it is
stale. Times are UTC.
"""


def page() -> str:
    """Return the page as it should be."""
    from dags import runner

    dags = runner.load_dags()
    return "\n".join([HEAD, *(line for name in sorted(dags) for line in _dag(dags[name]))])


def _dag(dag: Any) -> Iterator[str]:
    yield from (f"## {dag.dag_id}", "", dag.doc_md.strip(), "")
    yield from (f"Schedule: {_schedule(dag.timetable)}. {_habits(dag)}", "")
    yield from ("| param | type | default | what it does |", "| --- | --- | --- | --- |")
    for name, param in dag.params.items():
        default = json.dumps(param.value)
        yield f"| `{name}` | {_type(param.schema)} | `{default}` | {param.description} |"
    yield from ("", "| task | after | what it does | runs |", "| --- | --- | --- | --- |")
    for task in dag.topological_sort():
        after = ", ".join(f"`{name}`" for name in sorted(task.upstream_task_ids)) or "–"
        yield f"| `{task.task_id}` | {after} | {_sentence(task.doc_md)} | {_runs(task)} |"
    yield ""


def _schedule(timetable: Any) -> str:
    if not timetable.can_be_scheduled:
        return "none, by hand"
    cron = getattr(timetable, "timetable", timetable)
    schedule = f"`{cron.expression}`"
    if cron is not timetable:
        assets = ", ".join(_uri(asset) for asset in timetable.asset_condition.objects)
        schedule += f" or the asset {assets}"
    return schedule


def _habits(dag: Any) -> str:
    habits = ["Paused when it is new"] if dag.is_paused_upon_creation else []
    habits += [
        f"{dag.max_active_runs} run at a time",
        "catches up" if dag.catchup else "no catch-up",
    ]
    return f"{'; '.join(habits)}. Tags: {', '.join(sorted(dag.tags))}."


def _runs(task: Any) -> str:
    limit = task.execution_timeout or task.response_timeout
    parts = [f"{task.retries} retries", f"at most {_duration(limit)}"]
    if task.pool != "default_pool":
        parts.append(f"pool `{task.pool}`")
    if task.is_mapped:
        parts.append("once for each recipe")
    if task.trigger_rule != "all_success":
        parts.append(f"`{task.trigger_rule.value}`")
    parts += [f"emits {_uri(asset)}" for asset in task.outlets]
    return ", ".join(parts)


def _duration(length: timedelta) -> str:
    minutes = int(length.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def _type(schema: dict[str, Any]) -> str:
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return ", ".join(schema.get("format", name) if name == "string" else name for name in types)


def _uri(asset: Any) -> str:
    return f"`{asset.uri.rstrip('/')}`"  # Airflow adds the slash


def _sentence(text: str) -> str:
    return " ".join(text.split())


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit code."""
    with TemporaryDirectory(prefix="nightjar-") as folder:
        environment.apply(Path(folder))
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        fresh = page()
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == fresh:
            return 0
        sys.stderr.write("docs/DAGS.md is stale: run `python -m dags.document`\n")
        return 1
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
