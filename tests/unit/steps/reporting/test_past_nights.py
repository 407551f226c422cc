"""Results of earlier runs that a page shows."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from pipeline.errors import StorageError
from pipeline.evaluation.gate.e_process_status import EProcessStatus
from pipeline.steps.reporting.past_nights import e_process_paths, past_churn, past_parity
from pipeline.workspace.artifacts import FollowedParityFile
from pipeline.workspace.release_artifacts import ChurnFile, ParityFile
from tests.pages import churn, scored

NIGHTS = [datetime(2024, 6, day, 9, tzinfo=UTC) for day in (1, 8, 15, 22)]


def standing(champion, recipe, log):
    return EProcessStatus(recipe, recipe, champion, NIGHTS[0], 0.2, 500.0, "recorded", log_e=log)


def entry(as_of, *e_processes):
    return SimpleNamespace(
        as_of=as_of, run_id=f"{as_of:%d}", decision=SimpleNamespace(e_processes=e_processes)
    )


def test_a_path_begins_anew_with_another_champion_and_survives_a_run_without_figures():
    before = [
        entry(NIGHTS[0], standing("a", "x", 1.0), standing("a", "y", 2.0)),
        entry(NIGHTS[1]),  # its figures must not count
        entry(NIGHTS[2], standing("a", "x", 3.0)),
    ]
    paths = e_process_paths(before, NIGHTS[3], [standing("a", "x", 4.0), standing("a", "y", 5.0)])
    rounded = {name: [(at, round(log, 9)) for at, log in path] for name, path in paths.items()}
    assert rounded == {
        "x": [(NIGHTS[0], 1.0), (NIGHTS[2], 3.0), (NIGHTS[3], 4.0)],
        "y": [(NIGHTS[0], 2.0), (NIGHTS[3], 5.0)],
    }
    other = e_process_paths(before, NIGHTS[3], [standing("b", "x", 4.0)])
    assert [at for at, _ in other["x"]] == [NIGHTS[3]]
    assert e_process_paths(before, NIGHTS[3], []) == {}


class Runs:
    """Files of runs by run id and kind; a run that is not there is gone."""

    def __init__(self, files):
        self.files = files

    def open(self, run_id):
        def find(kind):
            if run_id not in self.files:
                raise StorageError("run.no_file", "gone")
            return self.files[run_id].get(kind)

        return SimpleNamespace(find=find)


@pytest.fixture
def night():
    parity = ParityFile(users=3, overlap=0.5, k=10, reason=None)
    folded, retrained = (scored("1", "all", 20, 30, 0.1, ndcg) for ndcg in (0.2, 0.3))
    followed = FollowedParityFile(run_id="01", k=20, folded=folded, retrained=retrained)
    files = {
        "01": {ChurnFile: churn(0.9, 5), ParityFile: parity},
        "15": {FollowedParityFile: followed},
        "22": {},
    }
    return SimpleNamespace(as_of=NIGHTS[3], run_id="22", ws=SimpleNamespace(runs=Runs(files)))


def test_a_run_whose_files_are_gone_leaves_a_gap(night):
    before = [entry(at) for at in NIGHTS[:3]]
    now = churn(0.8, 6)
    assert past_churn(night, before, None) == ((NIGHTS[0], churn(0.9, 5)),)
    assert past_churn(night, before, now)[1:] == ((NIGHTS[3], now),)


def test_parity_has_the_scores_of_its_lists_until_the_next_run(night):
    before = [entry(at) for at in NIGHTS[:3]]
    now = ParityFile(users=0, overlap=None, k=10, reason="nobody came back")
    first, last = past_parity(night, before, now)
    assert (first[0], first[1].overlap) == (NIGHTS[0], 0.5)
    assert (first[2].folded.ndcg, first[2].retrained.ndcg) == (0.2, 0.3)
    assert last == (NIGHTS[3], now, None)
