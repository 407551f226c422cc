from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree as Xml

import pytest

from pipeline.evaluation.calibration import Calibration, Replay
from pipeline.number_text import share
from pipeline.report.calibration import figure, sentence, text, title
from tests.unit.evaluation.test_calibrate import calibrated, shop

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrated(shop(n=400))


def test_the_title_states_the_finding(calibration):
    assert title(calibration).startswith(
        f"0 of {len(calibration.equal)} equal recipes reach a switch; "
    )
    wrong = replace(calibration.equal[0], switched=2)
    assert title(replace(calibration, equal=(wrong,))).startswith("1 of 1 equal recipes reach")
    assert title(replace(calibration, v_hat=0.0)).startswith("No seed noise; ")


def test_sentence_and_text_hold_every_figure(calibration):
    line = sentence(calibration)
    upper = float(re.search(r"at most ([\d.]+) %", line)[1])
    assert 100 * calibration.rate_upper <= upper < 100 * calibration.rate_upper + 0.1
    sure = sentence(replace(calibration, rate=1e-9, rate_upper=1e-7))
    assert "in under 0.01 % of cases, at most 0.01 %" in sure
    assert f"in {share(calibration.power)} of replays" in line
    lines = text(
        calibration, "blend", 20, [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)]
    )
    for part in (
        "2024-04-01",
        "400, 400",
        "0 of 224",
        "0 of 16",
        "seed SD ",
        "SD of z",
        "533",
        "random splits",
    ):
        assert part in lines
    dull = replace(calibration, v_hat=0.0, rate=0.0, rate_upper=0.0, seed_sd=0.0)
    assert "no seed noise" in sentence(dull)
    assert f"{calibration.tossed_passed} of 4,000 random splits, at most 0." in sentence(dull)
    lines = text(dull, "blend", 20, [])
    assert "no seed noise" in lines
    assert lines.count("false switches") == 1
    assert f"false switches in {calibration.tossed_passed} of 4,000 random splits" in lines


def test_the_figure_is_an_svg_with_a_description_and_repeats(calibration):
    drawn = figure(calibration)
    assert drawn == figure(calibration)
    root = Xml.fromstring(drawn)
    assert root.attrib["aria-label"].startswith(title(calibration))
    words = [text.text for text in root.iter(f"{SVG}text")]
    for label in ("533 needed", "× equal", "blocks of days"):
        assert label in words
    assert len(drawn) < 60_000


def test_points_beyond_counting_and_below_the_floor_are_drawn(calibration):
    far = Replay((1e4, 2e4, 3e4, 4e4), 1)
    low = Replay((-50.0, -100.0, -150.0, -200.0), None)
    drawn = figure(replace(calibration, better=(far,), equal=(low,)))
    assert b"1,000,000" in drawn
