"""The benchmarks run and say what they measured; how fast it was is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import Figure, Limits, Report, quantile

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_S = 240
TARGETS = {"P1": 1, "P2": 4, "P3": 1, "P4": 1, "P6": 4}
"""How many figures of each benchmark have a target."""


def test_a_figure_knows_its_direction():
    more = Figure("P1", "", 0.2, "x", "", Limits(0.1, 0.3, at_least=True))
    less = Figure("P3", "", 0.2, "s", "", Limits(0.1, 0.05))

    assert (more.is_reached, less.is_reached) == (True, False)
    assert Figure("P1", "", 1.0, "ms", "").is_reached is None


def test_the_table_names_value_target_and_verdict():
    report = Report(quick=True, rounds=1)
    report.figures.append(
        Figure("P1", "tasks", 0.25, "x", "floor", Limits(0.1, 0.3, at_least=True))
    )

    assert "0.25 x  >= 0.1  >= 0.3  yes" in report.as_text()


def test_the_quantile_is_one_of_the_values():
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert quantile([5.0], 0.5) == 5.0


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S + 30)
def test_one_small_round_of_everything(tmp_path):
    target = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--json", str(target)]
    with (tmp_path / "bench.log").open("wb") as log:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
    text = (tmp_path / "bench.log").read_text()

    assert done.returncode == 0, text[-2000:]
    assert f"JSON: {target}" in text
    report = json.loads(target.read_text())
    assert report["machine"]["cores"] > 0
    assert len(report["machine"]["load_average_at_start"]) == 3
    judged = [figure for figure in report["figures"] if figure["limits"]]
    for target_id, count in TARGETS.items():
        assert sum(figure["target_id"] == target_id for figure in judged) == count, text
    for figure in judged:
        assert isinstance(figure["reached"], bool)
        assert figure["name"] in text or figure["name"].startswith("  ")
    assert all(f["value"] > 0 for f in judged if f["target_id"] != "P3")


def test_an_unknown_benchmark_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "P9"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "P9" in done.stderr
