"""Every error has an id `area.problem`, and its message is pinned once, in `tests/golden`.

    .venv/bin/python -m tests.unit.test_messages

writes the messages anew. A message that changes shows there, and in no other test.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

from pipeline import errors

ROOT: Final = Path(__file__).resolve().parents[2]
GOLDEN: Final = ROOT / "tests" / "golden" / "messages.json"


def error_names(trees: list[ast.Module]) -> set[str]:
    """Return the names of all error classes, those outside of `errors` included."""
    names = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    names = {name for name in names if issubclass(getattr(errors, name), errors.NightjarError)}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while new := {
        node.name
        for node in classes
        if node.name not in names
        and any(isinstance(base, ast.Name) and base.id in names for base in node.bases)
    }:
        names |= new
    return names


def template(node: ast.expr) -> str:
    """Return a message as written, with its expressions in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return f"{{{ast.unparse(node)}}}"


def messages() -> dict[str, list[str]]:
    """Return the messages of all errors that the package makes, by id."""
    trees = [
        ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "pipeline").rglob("*.py"))
    ]
    names = error_names(trees)
    by_id: dict[str, set[str]] = defaultdict(set)
    for tree in trees:
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in names
                and len(node.args) >= 2
            ):
                by_id[template(node.args[0])].add(template(node.args[1]))
    return {id: sorted(texts) for id, texts in sorted(by_id.items())}


def test_every_error_has_an_id_of_an_area_and_a_problem() -> None:
    ids = messages()
    assert len(ids) > 100
    assert not [id for id in ids if not re.fullmatch(r"[a-z_0-9]+\.([a-z_0-9]+|\{.*\})|\{.*\}", id)]


def test_messages_are_those_that_are_pinned() -> None:
    assert messages() == json.loads(GOLDEN.read_text("utf-8"))


if __name__ == "__main__":
    text = json.dumps(messages(), indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")
