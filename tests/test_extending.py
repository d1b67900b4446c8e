"""The examples of ``docs/extending.md``: by file and by entry point."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redediting as rd
from defenses import detect
from defenses.detectors import DETECTORS
from redediting.attacks import ATTACKS
from redediting.errors import DetectorError, MethodError, MetricError, ModelError, RedEditingError
from redediting.metrics import METRICS
from redediting.models.layouts import LAYOUTS
from redediting.registry import Registry

DOCS = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
EXAMPLES = {  # class: its code
    re.findall(r"^class (\w+)", code, flags=re.MULTILINE)[0]: code
    for code in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), flags=re.DOTALL)
    if "\nclass " in code
}
KINDS: dict[str, tuple[Registry[Any], str, str]] = {  # registry, class and name in the page
    "attacks": (ATTACKS, "Plain", "plain"),
    "metrics": (METRICS, "Grey", "grey"),
    "detectors": (DETECTORS, "EndMass", "end_mass"),
    "layouts": (LAYOUTS, "Upward", "upward"),
}


def example(kind: str, name: str) -> str:
    """The page's example under another name."""
    _, title, old = KINDS[kind]
    return EXAMPLES[title].replace(f'"{old}', f'"{name}')


FEW = rd.Counts(free=2, fixed=1, head=1, phrases=1, collateral=1, benign=2)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """Writes an extension into a file of its own; returns its path."""

    def write(kind: str) -> str:
        path = tmp_path / f"my_{kind}.py"
        path.write_text(example(kind, f"file_{kind}"), "utf-8")
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
    for kind, (_, name, _) in KINDS.items():
        (site / f"plugin_{kind}.py").write_text(example(kind, f"own_{kind}"), "utf-8")
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
        assert row["own_metrics_ci"] is None  # of so few images there is none
        assert row["own_metrics_ci"] is None
    assert "own_attacks" in str(results.table())


def test_a_detector_stands_beside_the_others(
    installed: None, file: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDEDITING_CACHE", str(tmp_path / "cache"))
    flags = detect(
        rd.load("world"),
        None,
        ["a photo of a beautiful cat", "a dog"],
        detectors=["own_detectors", file("detectors"), "projection"],
        clean_prompts=["a red dog", "a cat", "a car on a beach", "a tree"],
        sampler=rd.Sampler(steps=1),
        progress=False,
    )
    heads = [column.title for column in flags.table().columns]
    assert heads == ["prompt", "own_detectors", "file_detectors", "projection"]
    own, from_file = (flags.detectors[name] for name in heads[1:3])
    assert own["scores"] == from_file["scores"]
    assert own["flagged"] == from_file["flagged"]


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
    registry, name, _ = KINDS[kind]
    with pytest.raises(error, match=r"got .*none\.py"):
        registry.get(str(tmp_path / "none.py"))
    second = f"\nclass Second({name}):\n    name = 'second'\n"
    (tmp_path / "two.py").write_text(example(kind, "first") + second)
    with pytest.raises(error, match="define one class"):
        registry.get(str(tmp_path / "two.py"))
    (tmp_path / "cut.py").write_text("class")
    with pytest.raises(error, match="mend it"):
        registry.get(str(tmp_path / "cut.py"))
    with pytest.raises(error, match="got 'nothing'"):
        registry.get("nothing")
