"""Links of the page of a run."""

from types import SimpleNamespace

import pytest

from pipeline.steps.reporting.page_files import _links
from pipeline.workspace.artifacts import SnapshotFile
from pipeline.workspace.release_artifacts import MlflowFile

LOCAL = "http://127.0.0.1:5000"


def links(uri, *, mlflow=True, model="shop & co", airflow=None):
    registry = SimpleNamespace(tracking_uri=uri, model_name=model)
    snapshot = SimpleNamespace(config=SimpleNamespace(registry=registry), airflow_run=airflow)
    files = {SnapshotFile: snapshot, MlflowFile: MlflowFile(run="abc", version=3)}
    run = SimpleNamespace(
        read=lambda kind: files[kind],
        find=lambda kind, step: files[kind] if mlflow else None,
        committed=lambda step: None,
    )
    return dict(_links(run))


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        (None, LOCAL),
        ("sqlite:////data/mlflow.db", LOCAL),
        ("https://user:secret@mlflow.shop:8443/ml/", "https://mlflow.shop:8443/ml"),
    ],
)
def test_links_lead_to_the_server_and_hold_no_password(uri, base):
    addresses = [address.partition("?")[0] for address in links(uri).values()]
    assert addresses[1:] == [f"{base}/#/runs/abc", f"{base}/#/models/shop%20%26%20co/versions/3"]


def test_a_run_that_mlflow_does_not_have_yet_has_no_link_to_it():
    assert list(links(None, mlflow=False).values()) == ["../../reports/index.html"]
    address = "http://127.0.0.1:8080/dags/nightly_retrain/runs/r"
    assert links(None, mlflow=False, airflow=address)["Airflow run"] == address
