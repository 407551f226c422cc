"""Names and prose use words that a colleague could search for.

No part of a name that `pipeline`, `dags`, `benchmarks` or `tests` define is a private word. Parts
are split by underscore and by camel case; names are those of modules, functions, classes,
variables, arguments, attributes and import aliases.

No docstring, comment, message or page has one of `PRIVATE_WORDS`, and no docstring opens with a
question word. In `tests`, strings that are not docstrings do not count, nor does this file. Code in
backticks and code blocks does not count. Public functions of `pipeline` with two or more arguments
have numpy sections, except commands, whose docstring is their help.

    .venv/bin/python tests/unit/test_language.py

prints each finding as `file:line text`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("pipeline", "dags", "benchmarks", "tests")
PRIVATE_NAMES: Final = {
    *("anybody", "calm", "dice", "eve", "footing", "found", "lately", "lived", "mortal"),
    *("nameless", "nobody", "ours", "people", "rung", "rungs", "said", "salt", "salts", "says"),
    *("settle", "settled", "settles", "somebody", "tell", "teller", "tells", "theirs", "told"),
    *("unread", "whoever", "woken", "worth"),
}
# Salts of a hash, where those are meant: file and word.
ALLOWED: Final = {("pipeline/stores/vault.py", "salt")}
PROSE_FOLDERS: Final = ("pipeline", "dags", "benchmarks", "docs")
PRIVATE_WORDS: Final = re.compile(
    r"\b(tells?|told|telling|says?|said|saying|hears?|heard|ours|theirs|people|nobody|somebody"
    r"|anybody|whoever|lately|unread|eve|dice|calm|rungs?|footings?"
    r"|(?<!there )(?:is|are|was) no)\b(?! longer)",
    re.IGNORECASE,
)
QUESTION_WORDS: Final = re.compile(r"\s*(What|Who|How|Which|Where|When|Why|Whether)\b")
CODE: Final = re.compile(r"``.*?``|`[^`]*`", re.DOTALL)


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
    findings = []
    for path in paths:
        file = path.relative_to(ROOT).as_posix()
        module = path.parent.name if path.stem == "__init__" else path.stem
        names = [(1, module, "module"), *defined_names(ast.parse(path.read_text("utf-8")))]
        for line, name, kind in names:
            words = name_parts(name) & PRIVATE_NAMES
            if any((file, word) not in ALLOWED for word in words):
                findings.append((file, line, name, kind))
    return [f"{file}:{line} {name} ({kind})" for file, line, name, kind in sorted(findings)]


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string that stands alone: docstrings, those of fields too."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def code_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each comment, and of each string with a space."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Constant(value=str(value)) if " " in value:
                yield node.lineno, value
    yield from comments(text)


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def page_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of a page, without code blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith(("    ", "```")):
            yield number, line


def private_words() -> list[str]:
    """Return private words in prose, and docstrings that open with a question word."""
    findings = []
    for folder in (*PROSE_FOLDERS, "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path == Path(__file__).resolve():
                continue
            text, file = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
            alone = [*docstrings(ast.parse(text))]
            findings += [
                (file, line, first)
                for line, prose in alone
                if QUESTION_WORDS.match(prose)
                for first in [prose.strip().partition("\n")[0]]
            ]
            checked = [*alone, *comments(text)] if folder == "tests" else code_prose(text)
            findings += [(file, *words) for words in _words(iter(checked))]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    pages += [path for name in ("docker", "mlflow") for path in (ROOT / name).rglob("*")]
    pages += [*(ROOT / ".make").glob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    pages += (ROOT / "pipeline").rglob("*.html")
    assert len(pages) > 20
    for page in sorted(page for page in pages if page.is_file()):
        file = page.relative_to(ROOT).as_posix()
        findings += [(file, *words) for words in _words(page_prose(page.read_text("utf-8")))]
    return [f"{file}:{line} {text}" for file, line, text in findings]


def _words(prose: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for line, text in prose:
        plain = CODE.sub("", text)
        for match in PRIVATE_WORDS.finditer(plain):
            at = line + plain[: match.start()].count("\n")
            yield at, f"{match[0]!r} in {plain[max(0, match.start() - 40) : match.end() + 30]!r}"


def without_sections() -> list[str]:
    """Return public functions with two or more arguments that lack numpy sections."""
    findings = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        owners = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_")]
        for owner in owners:
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                    decorators = {ast.unparse(d).partition("(")[0] for d in node.decorator_list}
                    bound = owner is not tree and "staticmethod" not in decorators
                    names = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                    text = ast.get_docstring(node) or ""
                    if (
                        len(names) - bound >= 2
                        and not decorators & {"override", "command", "app.command", "app.callback"}
                        and node.name != "train"  # of each family: documented in the contract
                        and not re.search(r"^(Parameters|Returns|Yields|Raises)\n---", text, re.M)
                    ):
                        file = path.relative_to(ROOT).as_posix()
                        findings.append(f"{file}:{node.lineno} {node.name} has no sections")
    return findings


def long_private_docstrings() -> list[str]:
    """Return private functions whose docstring has more than one line."""
    return [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and re.match("_[^_]", node.name)
        if "\n" in (ast.get_docstring(node) or "")
    ]


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


def test_words_in_prose_are_detected_where_they_count() -> None:
    code = '"""Whether it is."""\nmessage = "nobody is `told` so"  # in dice\nkey = "told"\n'
    assert [text for _, text in docstrings(ast.parse(code))] == ["Whether it is."]
    assert QUESTION_WORDS.match("Whether it is.")
    findings = [text.partition(" ")[0] for _, text in _words(code_prose(code))]
    assert findings == ["'nobody'", "'dice'"]
    page = "It is no longer so.\n\n    told\n\n```\ntold\n```\nThis is no test.\n"
    assert [line for line, _ in _words(page_prose(page))] == [8]


def test_no_prose_holds_a_private_word() -> None:
    assert private_words() == []


def test_public_functions_have_numpy_sections() -> None:
    assert without_sections() == []


def test_private_functions_have_a_docstring_of_one_line_or_none() -> None:
    assert long_private_docstrings() == []


if __name__ == "__main__":
    findings = [*private_names(), *private_words(), *without_sections()]
    print("\n".join(findings))
    sys.exit(bool(findings))
