from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pipeline import columns as c
from tests.code_lines import docstring_lines

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "data",
    "models",
    "evaluation",
    "monitoring",
    "serving",
    "stores",
    "report",
    "workspace",
    "steps",
    "testing",
    "cli",
)
LOCKS = (
    "bootstrap.lock",
    "requirements.lock",
    "movielens.lock",
    "lightfm.lock",
    "docker/pipeline.lock",
    "gpu.lock",
    "docker/mlflow.lock",
)
# Words that can only mean the column; "kind" or "value" are other things elsewhere, too.
COLUMN_NAMES = {
    c.EVENT_ID,
    c.USER_ID,
    c.ITEM_ID,
    c.EVENT_DAY,
    c.TIMESTAMP,
    c.INGESTED_AT,
    c.CREATED_AT,
    c.PROPENSITY,
    c.CATALOGUE_VERSION,
    c.RULES_HASH,
}


def modules(*folders: str) -> list[Path]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert len(paths) > 5
    return paths


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for file in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / file).is_file():
            content = (ROOT / file).read_bytes()
            if b"\0" not in content[:8000]:
                yield file, content.decode("utf-8", errors="replace")


# --- code ---------------------------------------------------------------------------------------


def test_column_names_are_written_in_columns_alone() -> None:
    strays = [
        f"{name(path)}:{node.lineno} {node.value}"
        for path in modules("pipeline", "dags")
        if name(path) != "pipeline/columns.py"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and node.value in COLUMN_NAMES
    ]
    assert not strays


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Return the project modules that a module imports: at its top, in a function, or for types."""
    imported = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}:{node.lineno} is a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= full & known
            if full - known:
                imported.add(str(node.module))
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return imported & known


def test_no_modules_import_each_other_in_a_cycle() -> None:
    paths = {module_name(path): path for path in modules("pipeline", "dags")}
    imports = {module: imported_modules(path, set(paths)) for module, path in paths.items()}
    assert "pipeline.columns" in imports["pipeline.data.split"]
    TopologicalSorter(imports).prepare()  # its CycleError names the modules of a cycle


def test_a_contract_of_one_folder_covers_all_other_modules() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {module_name(path) for path in modules("pipeline")}
    packages = {module_name(path.parent / "__init__.py") for path in modules("pipeline")}
    gaps, folders = [], []
    for contract in config["tool"]["importlinter"]["contracts"]:
        _, only, folder = contract["name"].partition(" only in ")
        if not only:
            continue
        folders.append(folder)
        covered = (f"pipeline.{folder}", *contract["source_modules"])
        # A package above a listed module cannot be listed without its modules.
        above = {x for x in packages if any(f"{module}.".startswith(f"{x}.") for module in covered)}
        gaps += [
            f"{contract['name']}: {module}"
            for module in sorted(names - above)
            if not any(f"{module}.".startswith(f"{x}.") for x in covered)
        ]
    assert {"data.validate", "report", "stores.lake"} <= set(folders)
    assert gaps == []


OBJECTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
NAMED = {"eval", "exec", "compile", "__import__"}
CALLED = {"system", "popen", "mktemp", "unsafe_load"}


def test_no_code_runs_a_text_or_loads_an_object() -> None:
    def fault(node: ast.AST) -> bool:
        if isinstance(node, ast.Import):
            return any(alias.name.partition(".")[0] in OBJECTS for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            return str(node.module).partition(".")[0] in OBJECTS
        if isinstance(node, ast.keyword):
            closed = isinstance(node.value, ast.Constant) and not node.value.value
            return node.arg in ("shell", "allow_pickle") and not closed
        if isinstance(node, ast.Attribute):
            return node.attr in CALLED or ast.unparse(node) == "yaml.load"
        return isinstance(node, ast.Name) and node.id in NAMED

    faults = [
        f"{name(path)}:{getattr(node, 'lineno', '')} {ast.unparse(node)}"
        for path in modules("pipeline", "dags", "docs", "docker", "mlflow", ".make")
        for node in ast.walk(parse(path))
        if fault(node)
    ]
    assert faults == []


# Each is a name of our own, a number of placeholders, or checked: none is text of a user or a file.
IN_SQL = {
    "pipeline/stores/lake/compaction.py": {"column", "format_instant(instant)", "named"},
    "pipeline/stores/lake/delta.py": {"column", "named"},
    "pipeline/stores/registry/client.py": {
        *("RECIPE_TAG", "NightRecord.MARK", "self._model_name"),
        *("WORKSPACE_TAG", "self._workspace"),
    },
    "pipeline/stores/registry/versions.py": {"RUN_TAG", "night.run_id", "self.model_name"},
    "pipeline/stores/registry/runs.py": {"RUN_TAG", "RECIPE_TAG", "recipe", "self._record.run_id"},
    "pipeline/stores/registry/connection.py": {"table", "column"},
    "pipeline/stores/vault.py": {"_USERS", "column", "placeholders"},
}
SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|WHERE|VALUES|IN)\b| [<=>]+ '\?")


def test_only_known_values_become_part_of_sql() -> None:
    inserted: dict[str, set[str]] = {}
    for path in modules("pipeline", "dags", "docs", "docker"):
        for node in ast.walk(parse(path)):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            text = "".join(part.value if isinstance(part, ast.Constant) else "?" for part in parts)
            if SQL.search(text):
                values = [part.value for part in parts if isinstance(part, ast.FormattedValue)]
                inserted.setdefault(name(path), set()).update(map(ast.unparse, values))
    assert inserted == IN_SQL


def test_the_security_rules_of_ruff_hold_outside_tests() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lint = config["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert {rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdigit()} == {
        "S603",
        "S607",
    }
    without = [folder for folder, rules in lint["per-file-ignores"].items() if "S" in rules]
    assert without == ["tests/**", "benchmarks/**"]


def test_only_the_command_line_prints() -> None:
    printing = [
        f"{name(path)}:{node.lineno}"
        for path in modules("pipeline")
        if name(path) != "pipeline/cli/terminal.py"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "pprint")
    ]
    assert not printing


def test_steps_leave_expressions_on_columns_to_the_layers_below() -> None:
    expressions = [
        f"{name(path)}:{node.lineno} pl.{node.attr}"
        for path in modules("pipeline/steps")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ("col", "lit", "when")
        and isinstance(node.value, ast.Name)
        and node.value.id == "pl"
    ]
    assert not expressions


def test_only_the_command_line_and_the_swaps_read_the_clock() -> None:
    swaps = {"pipeline/steps/nightly/publish.py", "pipeline/steps/feedback/foldin.py"}
    edges = {"pipeline/cli/terminal.py", *swaps}
    clocks = {"now", "utcnow", "today", "time", "time_ns"}
    reading = [
        f"{name(path)}:{node.lineno}"
        for path in modules("pipeline")
        if name(path) not in edges
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in clocks
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("datetime", "date", "time")
    ]
    assert not reading


def test_the_type_of_a_ledger_entry_is_its_class() -> None:
    compared = [
        f"{name(path)}:{node.lineno}"
        for path in modules("pipeline")
        if name(path) != "pipeline/workspace/config_errors.py"  # pydantic's errors have a type, too
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and isinstance(node.slice, ast.Constant)
        and node.slice.value == "type"
    ]
    assert not compared


def test_modules_state_their_guarantees() -> None:
    silent = [name(p) for p in modules("pipeline", "dags") if not ast.get_docstring(parse(p))]
    assert not silent


STEPS = sorted(path.parent.name for path in (ROOT / "pipeline/steps").glob("*/__init__.py"))


@pytest.mark.parametrize("room", [*ROOMS, *(f"steps/{folder}" for folder in STEPS)])
def test_rooms_have_a_charter(room: str) -> None:
    charter = ast.get_docstring(parse(ROOT / "pipeline" / room / "__init__.py"))
    assert charter and "\nHere:" in charter and "\nNot here:" in charter


def test_artefacts_have_types() -> None:
    untyped = [
        f"{name(path)}:{number}"
        for path in modules("pipeline/steps", "pipeline/workspace")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for _ in re.findall(r"(?:dict|Mapping)\[str, Any\]", line)
    ]
    assert len(untyped) < 20, untyped


def test_every_folder_of_the_pipeline_has_a_layer() -> None:
    folders = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(ROOMS)
    assert len(STEPS) > 5


def test_modules_stay_small() -> None:
    """`tests/code_lines.py` lists the modules over 400 lines, which should be split."""
    lengths = {
        name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules("pipeline", "dags")
    }
    assert {file: lines for file, lines in lengths.items() if lines > 600} == {}


def test_functions_stay_small() -> None:
    """From `def` to the end, without the docstring: documentation costs nothing."""
    lengths = {
        f"{name(path)}:{node.lineno} {node.name}": node.end_lineno
        - node.lineno
        + 1
        - len(docstring_lines(node))
        for path in modules("pipeline", "dags", "benchmarks")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {function: lines for function, lines in lengths.items() if lines > 60} == {}


@pytest.mark.parametrize("library", ["mlflow", "docker"])
def test_our_folders_do_not_shadow_a_library(library: str) -> None:
    assert not (ROOT / library / "__init__.py").exists()
    spec = importlib.util.find_spec(library)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).parent != ROOT / library


def test_instants_are_converted_at_the_edges() -> None:
    conversions = [
        f"{name(path)}:{node.lineno}"
        for path in modules("pipeline")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("format_instant", "to_utc", "parse_instant")
    ]
    assert len(conversions) < 70, conversions


# --- dependencies -------------------------------------------------------------------------------


def requirements(lock: str) -> dict[str, list[str]]:
    """Requirement line -> its hashes."""
    by_package: dict[str, list[str]] = {}
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        if line.startswith("    --hash=sha256:"):
            by_package[next(reversed(by_package))].append(line)
        elif line and not line.lstrip().startswith("#"):
            by_package[line.removesuffix(" \\")] = []
    assert by_package
    return by_package


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_everything_by_hash(lock: str) -> None:
    for requirement, hashes in requirements(lock).items():
        assert re.match(r"[a-z0-9.-]+==[^ ]+( ; .+)?$", requirement), requirement
        assert hashes, requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_address_and_no_path(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    sources = set(re.findall(r"# +via (-r .*)", text)) | set(re.findall(r"#  +(-r .*)", text))
    assert sources <= {"-r -", "-r docker/mlflow.in"}


def scripts() -> list[str]:
    """Return the lines of the Makefile and of .ci/run, without comments."""
    text = "".join((ROOT / file).read_text(encoding="utf-8") for file in ("Makefile", ".ci/run"))
    return re.sub(r"^\s*#.*\n", "", text.replace("\\\n", " "), flags=re.MULTILINE).splitlines()


def test_packages_are_installed_by_hash_and_nothing_else_is_fetched() -> None:
    commands = [part for line in scripts() for part in re.split(r"[;{}]|\|\|", line)]
    installs = [command for command in commands if re.search(r"pip (install|sync)\b", command)]
    assert len(installs) >= 4
    for command in installs:
        own = "--offline" in command and command.rstrip().endswith("--editable .")
        locked = "--build-constraints lightfm.lock" in command and " -c lightfm.lock" in command
        assert "--require-hashes" in command or own or locked, command
    assert [line for line in scripts() if re.search(r"\b(curl|wget)\b|git clone", line)] == []


def wheel(folder: Path) -> Path:
    """Make a package of one empty module."""
    path, info = folder / "planted-1-py3-none-any.whl", "planted-1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("planted.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("changed", [False, True])
def test_a_package_with_another_hash_than_a_constraint_is_refused(
    tmp_path: Path, changed: bool
) -> None:
    """`make lightfm` has its hashes in constraints only; uv checks these as well."""
    digest = hashlib.sha256(wheel(tmp_path).read_bytes()).hexdigest()
    if changed:
        digest = digest[::-1]
    (tmp_path / "lock").write_text(f"planted==1 --hash=sha256:{digest}\n")
    options = ["--no-config", "--no-index", "--find-links", tmp_path, "--cache-dir", tmp_path / "c"]
    options += ["-c", tmp_path / "lock", "--target", tmp_path / "target"]
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--no-deps", *options, "planted"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == changed, done.stderr
    assert (tmp_path / "target" / "planted.py").exists() != changed
    assert not changed or "Hash mismatch" in done.stderr


def pins(lock: str) -> set[str]:
    return {requirement.split(" ")[0] for requirement in requirements(lock)}


@pytest.mark.parametrize("lock", ["docker/pipeline.lock", "gpu.lock", "docker/mlflow.lock"])
def test_images_install_the_tested_lock(lock: str) -> None:
    tested = {pin.split("==")[0]: set() for pin in pins("requirements.lock")}
    for pin in pins("requirements.lock"):
        tested[pin.split("==")[0]].add(pin)
    assert len(pins(lock)) > 15
    moved = [pin for pin in pins(lock) if pin not in tested.get(pin.split("==")[0], {pin})]
    assert not moved


def test_the_lock_holds_the_declared_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["demo"], *extras["dev"]]
    locked = {pin.split("==")[0] for pin in pins("requirements.lock")}
    missing = [a for a in asked if re.split(r"[<>=\[ ]", a)[0].lower() not in locked]
    assert asked and not missing


def test_the_lock_of_the_gpu_holds_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[<>=]", a)[0] for a in project["optional-dependencies"]["gpu"]}
    assert {"rmm-cu13", "pytest"} < asked <= {pin.split("==")[0] for pin in pins("gpu.lock")}


def test_lightfm_is_built_from_its_extra_with_the_locked_numpy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = pins("lightfm.lock")
    assert set(project["optional-dependencies"]["lightfm"]) <= locked
    assert {pin.split("==")[0] for pin in locked} == {"rectools-lightfm", "setuptools"}
    # What it runs with is there without it.
    needed = {"numpy", "requests", "scikit-learn", "scipy"}
    assert needed <= {pin.split("==")[0] for pin in pins("requirements.lock")}


@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="this is not the environment of make"
)
def test_the_environment_holds_nothing_that_no_lock_names() -> None:
    locked = {
        pin
        for lock in ("bootstrap.lock", "requirements.lock", "lightfm.lock", "gpu.lock")
        for pin in pins(lock)
    }
    installed = {
        f"{re.sub(r'[-_.]+', '-', package.name).lower()}=={package.version}"
        for package in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    assert len(installed) > 100
    own = {name for name in installed if name.startswith("nightjar==")}
    assert installed - own <= locked


# --- words --------------------------------------------------------------------------------------


def test_nothing_names_this_machine_or_a_registry() -> None:
    forbidden = [
        "/".join(parts) for parts in (("", "work", ""), ("", "tmp", "boot"), ("", "root", ""))
    ] + [
        ".".join(parts) for parts in (("pypi", "org"), ("files", "pythonhosted"), ("npmjs", "org"))
    ]
    results = [f"{file}: {word}" for file, text in tracked() for word in forbidden if word in text]
    assert not results


def test_documents_name_files_that_exist() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = [
        (document, path)
        for document in documents
        for path in re.findall(
            r"`((?:docs|docker|mlflow|dags|pipeline|tests|benchmarks|tools)/[\w./-]+)`",
            document.read_text(encoding="utf-8"),
        )
    ]
    assert len(named) > 5
    missing = [
        f"{name(document)}: {path}" for document, path in named if not (ROOT / path).exists()
    ]
    assert not missing


def test_every_store_is_documented_with_place_retention_and_erasure() -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (ROOT / "docs/STORES.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert rows and all(len(row) == 6 and all(row) for row in rows)
    owners = " ".join(row[1] for row in rows)
    stores = {
        path.stem
        for path in (ROOT / "pipeline/stores").iterdir()
        if path.name not in ("__init__.py", "__pycache__", "disk.py", "retention.py")
    }
    assert stores
    missing = [store for store in stores if f"pipeline/stores/{store}" not in owners]
    assert not missing


def test_decisions_are_numbered_and_complete() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [record.name[:4] for record in records] == [
        f"{number:04}" for number in range(1, len(records) + 1)
    ]
    for record in records:
        text = record.read_text(encoding="utf-8")
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{record.name} lacks {heading}"


def test_the_changelog_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# --- make ---------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target() -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"],
        capture_output=True,
        text=True,
        check=True,
        env=clean,
    ).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets and len(targets[1].split()) >= 9
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\w", shown, re.MULTILINE), target
