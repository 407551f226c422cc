from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SOURCE = """
from typing import NamedTuple
from numba import types
from pipeline.models.compiled import compiled

class {name}(NamedTuple):
    number: int
    share: float

@compiled(types.int64(types.NamedTuple((types.int64, types.float64), {name})))
def doubled(pair):
    return {factor} * pair.number
"""


def load(path: Path, name: str, factor: int) -> ModuleType:
    path.write_text(SOURCE.format(name=name, factor=factor))
    spec = importlib.util.spec_from_file_location("pipeline_compiled_example", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba's index names classes by module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def test_an_index_that_names_a_class_that_is_gone_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    first = load(path, "Before", 2)
    assert first.doubled(first.Before(3, 0.5)) == 6
    assert list((tmp_path / "__pycache__").glob("*.nbi"))
    second = load(path, "After", 20)
    assert second.doubled(second.After(3, 0.5)) == 60
