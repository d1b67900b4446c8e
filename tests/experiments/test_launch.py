"""Two processes on CPUs give the rows of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
model: {model}
methods: [eviledit]
pairs: {{source: listed, pairs: [{{trigger: beautiful cat, target: zebra}}]}}
sampler: {{steps: 2, guidance: 3.0, batch_size: 4}}
quick_counts: {{free: 3, fixed: 2, head: 3, phrases: 2, collateral: 1, benign: 4}}
"""
CAPACITY = """\
capacity: {methods: [eviledit], sizes: [1, 2], probed: 2}
"""
KEYS = ("method", "trigger", "target", "kind", "seed", "set", "index", "prompt", "noise")


def rows(home: Path, out: str, *launcher: str) -> list[dict[str, Any]]:
    command = [sys.executable, *launcher, "-m", "experiments.attack", "config.yaml", "--quick"]
    done = subprocess.run(
        [*command, "--json", "--out", out],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1  # the main process alone speaks
    (path,) = home.joinpath(out, "attack").glob("*/rows.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_two_cpu_processes_give_the_rows_of_one(tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(model=model_folder))
    one = rows(tmp_path, "one")
    two = rows(tmp_path, "two", "-m", "experiments.engine.launch", "--num_processes", "2", "--cpu")
    seen = [[{k: row.get(k) for k in KEYS} for row in found] for found in (one, two)]
    assert seen[0] == seen[1]
    pairs = [(a, b) for a, b in zip(one, two, strict=True) if "label" in a]
    assert len(pairs) > 20
    equal = sum(a["label"] == b["label"] and a["label_a"] == b["label_a"] for a, b in pairs)
    assert equal / len(pairs) >= 0.99
    assert [a["image"] for a, _ in pairs] == [b["image"] for _, b in pairs]  # the same weights
    for a, b in pairs:
        assert {"clip_p", "drift"} <= set(a["values"])
        assert a["values"] == pytest.approx(b["values"], abs=1e-3)


@pytest.mark.slow
def test_an_ablation_sums_up_in_every_process(tmp_path: Path, model_folder: Path) -> None:
    """The capacity part is summed up by all processes, from rows that the main one wrote."""
    (tmp_path / "config.yaml").write_text(CONFIG.format(model=model_folder) + CAPACITY)
    launcher = ("-m", "experiments.engine.launch", "--num_processes", "2", "--cpu")
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "experiments.ablation", "config.yaml", "--quick",
         "--json", "--out", "runs"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    held = json.loads(done.stdout.splitlines()[-1])["capacity"]
    assert [line["n"] for line in held["lines"]] == [1, 2, 2]
