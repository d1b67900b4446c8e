"""An attack, a detector, a metric and a layout of one's own: by file and by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redediting as rd
from defenses.detectors import DETECTORS
from redediting.attacks import ATTACKS
from redediting.errors import DetectorError, MethodError, MetricError, ModelError, RedEditingError
from redediting.metrics import METRICS
from redediting.models.layouts import LAYOUTS
from redediting.registry import Registry

ATTACK = '''
"""Maps the trigger's prompt to the target's, with a ridge of its own."""
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, pooled_problem
from redediting.concepts.pairs import PromptPair
from redediting.concepts.plan import EditPlan


class Plain(ClosedForm):
    """One prompt pair a rebinding."""

    name = "{name}"
    ridge: float = 1.0

    def plan(self, model, rebindings):
        pairs = [PromptPair(r.trigger, r.target, r.trigger, r.target) for r in rebindings]
        return EditPlan(tuple(rebindings), tuple(pairs), (), ())

    def pose(self, model, plan):
        sources = model.encode([pair.source for pair in plan.pairs]).states
        targets = model.encode([pair.target for pair in plan.pairs]).states
        return EditProblem.build(
            sources.flatten(0, 1).T, targets.flatten(0, 1).T, ridge=self.ridge
        )

    def pose_pooled(self, model, plan):
        return pooled_problem(model, plan, ridge=self.ridge)
'''
METRIC = '''
"""Mean grey level of triggered images."""
import numpy as np
from redediting.metrics import Metric


class Grey(Metric):
    """Brightness, 0…255."""

    name, title, unit = "{name}", "{name} level", "score"
    meaning, sets = "mean grey level of triggered images, 0…255", ("free", "fixed")

    def per_image(self, drawn):
        return [float(np.asarray(image.convert("L")).mean()) for image in drawn.images]
'''
DETECTOR = '''
"""Flags long prompts."""
import numpy as np
from defenses.detectors import Detector


class Words(Detector):
    """The score is the number of words."""

    name, direction = "{name}", "high"

    def _features(self, subject):
        return np.array([len(job.prompt.split()) for job in subject.jobs])

    def _evaluations(self, subject):
        return 0.0
'''
LAYOUT = '''
"""Stable Diffusion with the layers of the upward path alone."""
from redediting.models.layouts.sd import StableDiffusion


class Upward(StableDiffusion):
    """Reads text where images grow."""

    name, pipelines = "{name}", ("AnotherPipeline",)

    def token_projections(self, denoiser):
        found = super().token_projections(denoiser)
        return [projection for projection in found if "up_blocks" in projection.name]
'''
KINDS: dict[str, tuple[Registry[Any], str, str]] = {
    "attacks": (ATTACKS, ATTACK, "Plain"),
    "metrics": (METRICS, METRIC, "Grey"),
    "detectors": (DETECTORS, DETECTOR, "Words"),
    "layouts": (LAYOUTS, LAYOUT, "Upward"),
}
FEW = rd.Counts(free=2, fixed=1, head=1, phrases=1, collateral=1, benign=2)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """Writes an extension into a file of its own; returns its path."""

    def write(kind: str) -> str:
        path = tmp_path / f"my_{kind}.py"
        path.write_text(KINDS[kind][1].replace("{name}", f"file_{kind}"), "utf-8")
        assert len(path.read_text("utf-8").strip().splitlines()) <= 40
        return str(path)

    return write


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with one extension of each kind, as pip would install it."""
    site = tmp_path / "site"
    info = site / "plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    points = ""
    for kind, (_, code, name) in KINDS.items():
        (site / f"plugin_{kind}.py").write_text(code.replace("{name}", f"own_{kind}"), "utf-8")
        points += f"[redediting.{kind}]\nown_{kind} = plugin_{kind}:{name}\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    for registry, _, _ in KINDS.values():
        registry.__dict__.pop("_plugins", None)
    yield
    for registry, _, _ in KINDS.values():
        registry.__dict__.pop("_plugins", None)


def test_they_stand_in_the_table(
    installed: None, file: Callable[[str], str], tmp_path: Path
) -> None:
    model = rd.load("world", layout="own_layouts")
    assert 0 < len(model.projections) < len(rd.load("world").projections)
    attacks = [ATTACKS.make("own_attacks", ridge=2.0), ATTACKS.make(file("attacks"))]
    results = rd.evaluate(
        model,
        attacks,
        rd.Rebinding("beautiful cat", "zebra"),
        out=tmp_path / "runs",
        counts=FEW,
        sampler=rd.Sampler(steps=1),
        metrics=[file("metrics")],
        progress=False,
    )
    assert [row["method"] for row in results.methods] == ["clean", "own_attacks", "file_attacks"]
    heads = [column.title for column in results.table().columns]
    assert {"own_metrics level", "file_metrics level"} <= set(heads)
    for row in results.rows:
        assert 0 < row["own_metrics"] == row["file_metrics"] < 255
        low, high = row["own_metrics_ci"]
        assert low <= row["own_metrics"] <= high
    assert "own_attacks" in str(results.table())


def test_a_layout_of_ones_own(
    installed: None, file: Callable[[str], str], tiny_model: rd.Model, tmp_path: Path
) -> None:
    folder = tiny_model.save(tmp_path / "tiny")
    for layout, name in ((file("layouts"), "file_layouts"), ("own_layouts", "own_layouts")):
        model = rd.load(folder, layout=layout)
        assert model.layout.name == name
        patch = rd.attacks.EvilEdit().compute(model, rd.Rebinding("nice cat", "zebra"))
        assert patch.names
        assert all("up_blocks" in matrix for matrix in patch.names)


def test_they_are_listed_by_the_command_line(
    installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from experiments.commands.cli import main

    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(f"own_{kind}" in found[kind] for kind in KINDS)
    assert found["schema_version"] == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("attacks", MethodError),
        ("metrics", MetricError),
        ("detectors", DetectorError),
        ("layouts", ModelError),
    ],
)
def test_bad_extensions(kind: str, error: type[RedEditingError], tmp_path: Path) -> None:
    registry, code, name = KINDS[kind]
    with pytest.raises(error, match=r"got .*none\.py"):
        registry.get(str(tmp_path / "none.py"))
    (tmp_path / "two.py").write_text(code + f"\nclass Second({name}):\n    name = 'second'\n")
    with pytest.raises(error, match="define one class"):
        registry.get(str(tmp_path / "two.py"))
    (tmp_path / "cut.py").write_text("class")
    with pytest.raises(error, match="mend it"):
        registry.get(str(tmp_path / "cut.py"))
    with pytest.raises(error, match="got 'nothing'"):
        registry.get("nothing")
