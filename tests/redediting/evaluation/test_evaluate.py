"""`rd.evaluate`: a plug-in's source is part of a run's name; what is damaged or empty is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import redediting as rd
from experiments.commands.cli import main
from redediting.errors import ConfigError, OutputError

PLUGIN = """
from redediting.metrics import Metric


class Constant(Metric):
    name, title, unit = "constant", "constant", "score"

    def per_image(self, drawn):
        return [{value} for _ in drawn.images]
"""
COUNTS = rd.Counts(free=1, fixed=1, head=1, phrases=1, collateral=1, benign=2)
PAIR = rd.Rebinding("beautiful cat", "zebra")


def run(out: Path, plugin: Path) -> rd.Results:
    return rd.evaluate(
        rd.load("world"), rd.attacks.EvilEdit(), PAIR, out=out, counts=COUNTS,
        sampler=rd.Sampler(steps=1), metrics=[str(plugin)], progress=False,
    )  # fmt: skip


def test_a_plug_in_file_that_changed_is_another_run(tmp_path: Path) -> None:
    plugin = tmp_path / "constant.py"
    found = {}
    for value in (1.0, 2.0):
        plugin.write_text(PLUGIN.format(value=value))
        done = run(tmp_path, plugin)
        found[done.folder] = [row["constant"] for row in done.rows]
    assert list(found.values()) == [[1.0, 1.0], [2.0, 2.0]]
    assert run(tmp_path, plugin).folder == list(found)[-1]


def test_a_finished_run_is_reported_and_damaged_arrays_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "constant.py"
    plugin.write_text(PLUGIN.format(value=1.0))
    folder = run(tmp_path, plugin).folder
    assert main(["report", str(folder)]) == 0
    assert "eviledit" in capfd.readouterr().out
    for file in (folder / "arrays").glob("*.npz"):
        file.write_bytes(b"xx")
    with pytest.raises(OutputError, match=r"damaged file; delete rows.jsonl and arrays/"):
        run(tmp_path, plugin)


def test_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    model = rd.load("world")
    for attacks, pairs in (([rd.attacks.EvilEdit()], []), ([], [PAIR])):
        with pytest.raises(ConfigError, match="expected at least one rebinding and one attack"):
            rd.evaluate(model, attacks, pairs, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_summary_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["report", str(tmp_path / "x.json")]) == 2
    assert "expected the summary of an experiment" in capfd.readouterr().err
