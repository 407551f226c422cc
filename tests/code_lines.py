"""Count the lines of code in `pipeline` and `dags`: without docstrings, comments and blank lines.

    .venv/bin/python tests/code_lines.py

Prints one line per folder and each module that is longer than 400 lines; `make check` runs it.
The docstrings that do not count are those of modules, classes and functions.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDERS: Final = ("pipeline", "dags")
LONG_MODULE: Final = 400


def docstring_lines(node: ast.AST) -> set[int]:
    """Return the line numbers of the docstring of a module, class or function."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    if ast.get_docstring(node, clean=False) is None:
        return set()
    docstring = node.body[0]
    return set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))


def code_lines(text: str) -> int:
    """Count the lines of a module that hold code."""
    excluded = set().union(*(docstring_lines(node) for node in ast.walk(ast.parse(text))))
    return sum(
        number not in excluded and bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
    )


def main() -> None:
    for folder in FOLDERS:
        texts = {path: path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py"))}
        if not texts:
            sys.exit(f"no module in {folder}")
        total = sum(code_lines(text) for text in texts.values())
        print(f"{folder}: {total:,} lines of code in {len(texts)} modules")
        for path, text in texts.items():
            if (length := len(text.splitlines())) > LONG_MODULE:
                print(f"  split {path.relative_to(ROOT).as_posix()}: {length} lines")


if __name__ == "__main__":
    main()
