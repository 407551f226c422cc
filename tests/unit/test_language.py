"""Names are words that a colleague could search for.

No part of a name that `pipeline` or `dags` define is a private word. Parts are split by underscore
and by camel case; names are those of modules, functions, classes, variables, arguments, attributes
and import aliases.

    .venv/bin/python tests/unit/test_language.py

prints every private word in a name, as `file:line name (kind)`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("pipeline", "dags")
PRIVATE_NAMES: Final = {
    *("calm", "dice", "eve", "footing", "found", "lately", "lived", "mortal", "nameless"),
    *("nobody", "ours", "rung", "said", "salt", "settle", "settled", "somebody", "tell"),
    *("teller", "theirs", "told", "unread", "whoever", "woken", "worth"),
}
# Salts of a hash, where those are meant: file and word.
ALLOWED: Final = {("pipeline/stores/vault.py", "salt")}


def name_parts(name: str) -> set[str]:
    """Split a name by underscore and camel case: `readHTMLPage` is read, html, page."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def defined_names(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield the line, name and kind of each definition in a module."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name, "function"
            case ast.ClassDef(name=name):
                yield node.lineno, name, "class"
            case ast.arg(arg=name):
                yield node.lineno, name, "argument"
            case ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name, "variable"
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name, "attribute"
            case ast.alias(asname=str(name)):
                yield node.lineno, name, "import alias"
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield node.lineno, name, "variable"


def private_names() -> list[str]:
    """Return the names with a private word, as `file:line name (kind)`."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(paths) > 100
    found = []
    for path in paths:
        file = path.relative_to(ROOT).as_posix()
        module = path.parent.name if path.stem == "__init__" else path.stem
        names = [(1, module, "module"), *defined_names(ast.parse(path.read_text("utf-8")))]
        for line, name, kind in names:
            words = name_parts(name) & PRIVATE_NAMES
            if any((file, word) not in ALLOWED for word in words):
                found.append((file, line, name, kind))
    return [f"{file}:{line} {name} ({kind})" for file, line, name, kind in sorted(found)]


def test_names_are_split_into_words() -> None:
    assert name_parts("_readHTMLPage_of2Told") == {"read", "html", "page", "of", "told"}
    assert name_parts("AsOfView") == {"as", "of", "view"}
    assert name_parts("SETTLED_AT") == {"settled", "at"}


def test_every_kind_of_definition_is_seen() -> None:
    code = """
import os as alias
class Thing:
    field: int = 1
    def method(self, first, *rest, last=lambda inner: inner, **options):
        self.attribute, (variable, *others) = 1, (2, 3)
        with open(first) as opened:
            [item for item in opened if (walrus := item)]
        try:
            ...
        except OSError as error:
            ...
        match first:
            case [head, *tail]:
                ...
            case {"key": value, **remaining}:
                ...
            case str() as text:
                ...
"""
    seen = {name for _, name, _ in defined_names(ast.parse(code))}
    assert seen == {
        *("alias", "Thing", "field", "method", "self", "first", "rest", "last", "inner"),
        *("options", "attribute", "variable", "others", "opened", "item", "walrus", "error"),
        *("head", "tail", "value", "remaining", "text"),
    }


def test_no_name_holds_a_private_word() -> None:
    assert private_names() == []


if __name__ == "__main__":
    print("\n".join(private_names()))
