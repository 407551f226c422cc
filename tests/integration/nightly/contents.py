"""Contents of a workspace and of MLflow after a night, in a form that tests compare."""

from __future__ import annotations

import re

import polars as pl

from pipeline import columns as c
from pipeline.report.night import NightPage
from pipeline.steps.lists import history, lists
from pipeline.steps.reporting.page_files import page_files


def outcome(ws):
    """Everything that a night publishes: publications, lists, ledger, events."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    shown = lists(ws, None).select(c.USER_ID, c.POSITION, c.ITEM_ID, c.SLOT)
    entries = [
        entry.model_dump(mode="json", exclude={"previous", "sha256", "decision"})
        for entry in history(ws)
    ]
    events = ws.lake.read("events").drop(c.USER_ID, c.BATCH_ID).sort(c.EVENT_ID)
    return publications.drop(c.SUMS), shown, entries, events


def same_outcome(one, other):
    return all(
        was.equals(now) if isinstance(was, pl.DataFrame) else was == now
        for was, now in zip(one, other, strict=True)
    )


def page_of(run):
    """Return the content of a run's page, from the file beside it."""
    return NightPage.parse(page_files(run)["page.json"].read_bytes(), "page.json")


def labels(html):
    """Return the descriptions of the figures of a page."""
    return re.findall(r'aria-label="([^"]*)"', html)


def mlflow_client(ws):
    from mlflow import MlflowClient

    return MlflowClient(ws.tracking_uri, ws.tracking_uri)


def mlflow_metrics(ws, run_id):
    return mlflow_client(ws).get_run(run_id).data.metrics
