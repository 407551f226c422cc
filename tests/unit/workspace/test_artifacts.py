import json
from datetime import UTC, datetime

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.split import Split
from pipeline.stores.runs import Runs
from pipeline.workspace.artifacts import SplitFile
from pipeline.workspace.release_artifacts import MlflowFile
from tests.raising import raises

TRUTH = pl.DataFrame({c.USER_ID: ["u"], c.ITEM_ID: ["a"]})


def day(number):
    return datetime(2024, 1, number, tzinfo=UTC)


def test_a_split_is_written_and_read_back(tmp_path):
    split = Split(
        train=Interval(day(1), day(8)),
        holdout=Interval(day(8), day(15)),
        holdout_days=7,
        task="repeat",
        repeat_share=0.5,
        target_kinds=("purchase",),
        judged=((7, 200), (14, 300)),
        flags=(),
        truth=TRUTH,
        targets=TRUTH,
        stronger_kinds=("purchase",),
    )
    run = Runs(tmp_path).open("one")
    with run.draft("features") as draft:
        draft.write(SplitFile.of(split))
    assert run.read(SplitFile).split(TRUTH, TRUTH, None) == split
    assert json.loads(run.bytes("features", "split.json"))["holdout"] == [
        "2024-01-08T00:00:00Z",
        "2024-01-15T00:00:00Z",
    ]


def test_a_file_of_another_shape_is_named_with_its_field(tmp_path):
    run = Runs(tmp_path).open("one")
    assert run.find(MlflowFile) is None
    with run.draft("register") as draft:
        draft.bytes("mlflow.json", b'{"run": "r", "version": "none"}')
    with raises("artifact.invalid"):
        run.read(MlflowFile)
