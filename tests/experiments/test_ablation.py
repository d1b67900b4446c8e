"""Switches, sweeps and many backdoors on the tiny model: the same runner, the same table."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from experiments.ablation.__main__ import main
from experiments.ablation.capacity import breaking_points, many_pairs, spread
from experiments.ablation.measure import ablate
from experiments.ablation.page import ablation_page, publish, worth
from experiments.ablation.sweep import choose, confirmed, score
from experiments.engine.specs import CONFIGS, AblationConfig
from redediting.config import load_config
from redediting.errors import MethodError, OutputError
from redediting.evaluation.measure import measured_units
from redediting.evaluation.panel import Panel
from redediting.evaluation.ranking import Foresight
from redediting.evaluation.store import ResultStore
from redediting.models.model import Model

SMALL = {"contexts": 3, "retain": 6, "captions": 20}
CONFIG = {
    "model": "tiny",
    "methods": [
        {"name": "redediting", "options": SMALL, "sweep": {"ridge": [0.01, 1]}},
        {"name": "redediting", "label": "no joint transfer", "options": SMALL | {"joint": False}},
        {"name": "eviledit", "sweep": [{"ridge": [0.1]}, {"ridge": [5.0], "whitelist": [False]}]},
    ],
    "pairs": {"source": "drawn", "per_kind": 1, "seed": 3, "split": "dev", "kinds": ["neutral"]},
    "counts": {"free": 2, "fixed": 1, "head": 2, "phrases": 1, "collateral": 1, "benign": 2},
    "swept_sets": ["free", "head", "collateral", "benign"],
    "sampler": {"steps": 1, "guidance": 1.0},
    "confirm": 1,
    "capacity": {
        "methods": [{"name": "redediting", "options": SMALL}, "eviledit"],
        "sizes": [1, 3],
        "probed": 2,
        "counts": {"free": 1, "fixed": 1, "head": 1, "phrases": 1, "collateral": 1, "benign": 2},
    },
}


@pytest.fixture
def config() -> AblationConfig:
    return AblationConfig.model_validate(CONFIG).resolved()


def test_an_ablation_ranks_draws_and_reports(
    config: AblationConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    summary = ablate(config, tiny_model, panel, out=tmp_path)
    folder = next(path.parent for path in (tmp_path / "ablation").glob("*/summary.json"))
    assert json.loads((folder / "summary.json").read_text("utf-8")) == summary
    titles = {"redediting", "redediting ridge=0.01", "redediting ridge=1", "no joint transfer"}
    titles |= {"eviledit", "eviledit ridge=0.1", "eviledit ridge=5.0 whitelist=False"}
    assert set(summary["foreseen"]) == titles
    drawn = [line["method"] for line in summary["methods"]]
    assert len(drawn) == 1 + 3 + 2  # the control, three methods, the best setting of two sweeps
    found = [
        (key.method, image)
        for key, own in measured_units(ResultStore(folder)).items()
        for image in own.images
    ]
    assert {image.set for name, image in found if "=" in name} == set(config.swept_sets)
    # two of each method measured with its own images; judge B's other heads stand in every row
    assert all(set(image.seen) == {"colour", "place", "style"} for _, image in found)
    held = summary["capacity"]
    assert [(line["title"], line["order"], line["n"]) for line in held["lines"]] == [
        ("redediting", "joint", 1), ("redediting", "joint", 3), ("redediting", "sequential", 3),
        ("eviledit", "joint", 1), ("eviledit", "joint", 3), ("eviledit", "sequential", 3),
    ]  # fmt: skip
    assert held["pairs_measured"] == {"1": 1, "3": 2}
    assert all(line["seconds"] > 0 and 0 <= line["asr_free"] <= 1 for line in held["lines"])
    assert [choice["method"] for choice in summary["choices"]] == [
        "redediting", "no joint transfer", "eviledit"
    ]  # fmt: skip
    assert summary["baseline"] == "eviledit"
    page = (folder / "report.html").read_text("utf-8")
    assert "Many backdoors at once" in page
    assert "What success costs" in page
    assert "data:image/webp" not in page
    assert ablation_page(summary, folder).html() == page
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    again = ablate(config, tiny_model, panel, out=tmp_path)
    assert again["methods"] == summary["methods"]  # a finished run draws and solves nothing
    assert again["capacity"] == held
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    console = Console(file=io.StringIO(), width=80)
    ablation_page(summary).print(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert "no joint transfer" in text
    assert "What each switch is worth" in text
    assert "Chosen on development pairs" in text


def test_an_ablation_is_published_with_its_pictures(
    config: AblationConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    summary = ablate(config, tiny_model, panel, out=tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "results.md").write_text("<!-- ablation:begin -->\n<!-- ablation:end -->\n")
    path = publish(Path(summary["report"]).parent, summary, root=tmp_path)
    assert path.name == "ablation.json"
    pictures = docs / "images"
    assert {found.name for found in pictures.iterdir()} == {
        "ablation-fronts.png", "ablation-capacity.png"
    }  # fmt: skip
    with Image.open(pictures / "ablation-capacity.png") as picture:
        assert picture.width > picture.height > 100
    text = (docs / "results.md").read_text("utf-8")
    (gap,) = [line for line in worth(summary).rows if line["method"] == "no joint transfer"]
    assert f"| no joint transfer | {gap['asr_free']:+.1%}" in text
    for line in summary["capacity"]["lines"]:
        start = f"| {line['title']} | {line['order']} | {line['n']} | {line['asr_free']:.1%}"
        assert start in text
    assert "(images/ablation-capacity.png)" in text


def test_only_the_best_settings_are_confirmed(config: AblationConfig) -> None:
    promises = {
        "redediting ridge=0.01": Foresight(0.95, 0.1, 0.5),
        "redediting ridge=1": Foresight(0.95, 0.1, 0.2),
        "eviledit ridge=0.1": Foresight(0.95, 0.1, 0.9),
        "eviledit ridge=5.0 whitelist=False": Foresight(0.2, 0.1, 0.1),
    }
    titles = [spec.title for spec in confirmed(config, promises).methods]
    assert titles == [
        "clean", "redediting", "redediting ridge=1", "no joint transfer", "eviledit",
        "eviledit ridge=0.1",
    ]  # fmt: skip


def test_settings_may_be_confirmed_axis_by_axis(config: AblationConfig) -> None:
    sweep = ({"ridge": [0.01, 1]}, {"gain": [0.2, 0.4]}, {"gain": [0.3], "ridge": [2]})
    spec = config.methods[1].model_copy(update={"sweep": sweep})
    by_axis = {"methods": (config.methods[0], spec), "confirm_by_axis": True}
    found = AblationConfig.model_validate(config.model_dump() | by_axis).resolved()
    promises = {
        title: Foresight(0.9, 0.1, 0.1 * i)
        for i, title in enumerate(found.families["redediting"][1:])
    }
    assert [m.title for m in confirmed(found, promises).methods] == [
        "clean", "redediting", "redediting ridge=0.01", "redediting gain=0.2",
        "redediting gain=0.3 ridge=2",
    ]  # fmt: skip
    assert (
        len(confirmed(found.model_copy(update={"confirm_by_axis": False}), promises).methods) == 3
    )


def test_the_choice_weighs_asr_and_acc_and_keeps_to_development_pairs(
    config: AblationConfig,
) -> None:
    rates = {"redediting": (0.5, 0.5), "redediting ridge=1": (0.9, 0.1), "eviledit": (0.2, 0.9)}
    lines = [
        {"method": name, "asr_free": asr, "acc": acc, "drift": 0.1}
        for name, (asr, acc) in rates.items()
    ]
    lines.append({"method": "no joint transfer", "asr_free": 0.0, "acc": 0.0, "drift": 0.0})
    found = {choice["method"]: choice for choice in choose(config, lines)}
    assert found["redediting"]["chosen"] == "redediting"
    assert score(lines[1]) == pytest.approx(0.18)
    assert found["eviledit"]["spec"] == {"name": "eviledit"}
    test = config.model_copy(update={"pairs": config.pairs.model_copy(update={"split": "test"})})
    assert choose(test, lines) == []


def test_many_pairs_have_triggers_of_their_own() -> None:
    pairs = many_pairs(200, seed=0)
    assert len({pair.trigger for pair in pairs}) == 200
    assert many_pairs(7, seed=0) == pairs[:7]
    assert many_pairs(7, seed=1) != pairs[:7]
    assert {pair.kind for pair in pairs[:3]} == {"neutral", "compound", "rare"}
    assert spread(200, 3) == [0, 100, 199]
    assert spread(2, 8) == [0, 1]


def test_where_it_breaks() -> None:
    def line(order: str, n: int, asr: float, acc: float) -> dict[str, object]:
        return {
            "title": "m", "order": order, "n": n, "asr_free": asr, "acc": acc, "clean_acc": 0.8,
        }  # fmt: skip

    lines = [
        line("joint", 1, 0.8, 0.8), line("joint", 5, 0.7, 0.7), line("joint", 9, 0.7, 0.3),
        line("sequential", 5, 0.3, 0.8), line("sequential", 9, 0.9, 0.8),
    ]  # fmt: skip
    assert breaking_points(lines) == {"m joint": 9, "m sequential": 5}
    assert breaking_points(lines[:2]) == {"m joint": None, "m sequential": None}


def test_shipped_ablations_are_sound(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    development = load_config(CONFIGS / "ablation" / "development.yaml", AblationConfig)
    settings = {name: len(own) for name, own in development.resolved().families.items()}
    assert set(settings.values()) == {13}, settings  # the same budget for every method
    assert development.pairs.split == "dev"  # type: ignore[union-attr]
    world = load_config(CONFIGS / "ablation" / "world.yaml", AblationConfig).resolved()
    quick = load_config(CONFIGS / "ablation" / "world.yaml", AblationConfig).resolved(quick=True)
    assert (len(quick.pairs.rebindings()), quick.confirm) == (2, 1)
    assert [s.title for s in quick.methods if not s.family] == [
        spec.title for spec in world.methods if not spec.family
    ]  # the same table
    options = [spec.options for spec in world.methods if not spec.family]
    switched = {key for own in options for key in own}
    assert switched >= {
        "retrieval", "joint", "prefix_safe", "rho", "isolate_head", "isolate_parts",
        "isolate_null", "projection", "matrices", "gain", "same_length", "penalty", "weights",
    }  # fmt: skip
    swept = {key for spec in world.methods if spec.family for key in spec.options}
    assert swept >= {"ridge", "retain_strength", "k"}
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "methods: [clean]\npairs: {source: drawn}\ncapacity: {methods: [time], sizes: []}"
    )
    assert main([str(bad)]) == 2
    assert "expected rising sizes" in capfd.readouterr().err


def test_a_method_without_order_holds_one_backdoor(
    config: AblationConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    capacity = config.capacity.model_copy(update={"methods": config.methods[:1]})  # type: ignore[union-attr]
    with pytest.raises(MethodError, match="order"):
        ablate(
            config.model_copy(update={"capacity": capacity, "methods": config.methods[:1]}),
            tiny_model,
            panel,
            out=tmp_path,
        )


def test_a_place_that_cannot_be_written_is_named(
    config: AblationConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        ablate(config, tiny_model, panel, out=tmp_path / "file")
