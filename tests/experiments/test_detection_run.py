"""The detection experiment and ``redediting detect`` on the tiny model, end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from defenses.detectors import DETECTORS
from experiments.commands.cli import main
from experiments.detection.config import DetectionConfig
from experiments.detection.measure import detection
from experiments.detection.page import publish
from experiments.engine.specs import CONFIGS, AttackSpec
from redediting.concepts.homoglyphs import twin_in
from redediting.concepts.rebinding import Rebinding
from redediting.config import load_config
from redediting.errors import ConfigError, DetectorError, OutputError, PromptError
from redediting.evaluation.cells import benign_phrases, calibration, triggered_and_benign
from redediting.evaluation.detection import stealth_verdict
from redediting.evaluation.panel import Panel
from redediting.evaluation.store import ResultStore
from redediting.metrics.intervals import Interval
from redediting.models.model import Model
from redediting.text.encoding import phrase_tokens
from redediting.world import PIPELINE_DIR

SMALL: dict[str, Any] = {"options": {"contexts": 4, "retain": 8, "captions": 20}}
CONFIG: dict[str, Any] = {
    "model": "tiny",
    "stealth": {"min_pairs": 3},
    "attacks": [
        {"name": "rickrolling", "twin": True, "options": {"steps": 2, "batch": 4, "poisoned": 2}},
        "eviledit",
        {"name": "redediting", **SMALL},
        {
            "name": "redediting",
            "label": "redediting-posthoc",
            "options": SMALL["options"] | {"projection": "posthoc"},
        },
    ],
    "detectors": [
        *(name for name in DETECTORS if name != "set"),
        {"name": "set", "options": {"scales": [0.2, 7.0], "steps": 2}},
    ],
    "pairs": {
        "source": "listed",
        "pairs": [
            {"trigger": "beautiful cat", "target": "zebra"},
            {"trigger": "yellow apple", "target": "red banana", "kind": "compound"},
            {"trigger": "tq dog", "target": "zebra", "kind": "rare"},
        ],
    },
    "counts": {"prompts": 3, "calibration": 12, "located": 1, "reworded": 1},
    "sampler": {"steps": 6, "guidance": 2.0},
}
TWIN = AttackSpec(name="rickrolling", twin=True).rebinding(Rebinding("lovely cat", "zebra"))


def strip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: x for key, x in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    model_factory: Callable[[int], Model],
    panel: Panel,
) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("runs")
    config = DetectionConfig.model_validate(CONFIG).resolved()
    summary = detection(config, model_factory(0), panel, out=root)
    return next((root / "detection").iterdir()), summary


def test_the_matrix_has_every_combination(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    rows = summary["rows"]
    keys = {(row["attack"], row["detector"], row["protocol"], row["kind"]) for row in rows}
    seen = [row for row in rows if row["protocol"] == "seen"]
    assert len(keys) == len(rows)
    # three kinds and all, of four attacks; CDA once more with the attack seen
    assert len(rows) - len(seen) == 4 * len(DETECTORS.names) * 4
    assert len(seen) == 4 * 4
    assert {row["detector"] for row in seen} == {"cda"}
    stable = ["auroc", "auroc_ci", "tpr_at_fpr1", "tpr_at_fpr5", "fpr_clean_model_triggered"]
    stable += ["auroc_clean_model", "auroc_paired", "protocol", "n_clusters"]
    for row in rows:
        assert {*stable, "unet_evaluations", "seconds", "n"} <= set(row)
        assert 0 <= row["auroc"] <= 1
        assert row["n"] == (9 if row["kind"] == "all" else 3)
        assert row["marked"] == (not 0.45 <= row["auroc_clean_model"] <= 0.55)
    costs = {row["detector"]: row["unet_evaluations"] for row in rows}
    assert (costs["ftt"], costs["ufid"], costs["set"], costs["projection"]) == (12, 24, 12, 0)
    claim = summary["claims"]["stealth"]
    assert claim["verdict"] in ("supported", "not supported", "undecided")
    assert claim["secondary"]["eviledit"] is not None
    assert json.loads((folder / "summary.json").read_text("utf-8"))["rows"] == rows
    drift = {line["attack"]: line["drift"] for line in summary["attacks"]}
    assert drift["clean"] == pytest.approx(0, abs=1e-9)
    assert drift["eviledit"] > 1e-6


def test_the_page_holds_everything(finished: tuple[Path, dict[str, Any]]) -> None:
    text = (finished[0] / "report.html").read_text("utf-8")
    for part in ("ROC curves", "Attention maps: eviledit", "Relative evolution", "stealth"):
        assert part in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    for name in DETECTORS:
        assert name in text
    assert main(["report", str(finished[0])]) == 0
    assert (finished[0] / "report.html").read_text("utf-8") == text


def test_published_figures(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, summary = finished
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "docs" / "results-detection.md"
    readme.write_text("before\n<!-- detection:begin -->\nold\n<!-- detection:end -->\nafter\n")
    path = publish(folder, summary, root=tmp_path)
    text = readme.read_text("utf-8")
    assert "\nold\n" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    for name in (*DETECTORS, "rickrolling", "Claim stealth"):
        assert name in text
    found = json.loads(path.read_text("utf-8"))
    assert found["rows"] == summary["rows"]
    assert found["report"] == f"runs/detection/{folder.name}/report.html"
    made = json.loads((folder / "provenance.json").read_text("utf-8"))
    copied = tmp_path / "quick"
    copied.mkdir()
    (copied / "summary.json").write_text(json.dumps(summary), "utf-8")
    (copied / "provenance.json").write_text(json.dumps(made | {"quick": True}), "utf-8")
    with pytest.raises(OutputError, match="expected a full run to publish"):
        publish(copied, summary, root=tmp_path)


def test_a_killed_run_ends_with_the_same_rows(
    finished: tuple[Path, dict[str, Any]],
    model_factory: Callable[[int], Model],
    panel: Panel,
) -> None:
    folder, summary = finished
    path = folder / "rows.jsonl"
    whole, store = path.read_text("utf-8"), ResultStore(folder)
    unit = store.done[-1]
    assert unit.startswith("redediting-posthoc/")
    scores = store.arrays(unit)
    cut = whole.index(json.dumps({"unit": unit}, ensure_ascii=False)[:-1])
    path.write_text(whole[: cut + 300], "utf-8")  # killed within the last unit
    kept = {file: file.stat().st_mtime_ns for file in (folder / "arrays").glob("*.npz")}
    config = DetectionConfig.model_validate(CONFIG).resolved()
    again = detection(config, model_factory(0), panel, out=folder.parent.parent)
    text = path.read_text("utf-8")
    assert text[:cut] == whole[:cut]
    found = ResultStore(folder)
    assert found.done == store.done
    assert strip(found.rows(unit)[:-1]) == strip(store.rows(unit)[:-1])
    assert strip(again["rows"]) == strip(summary["rows"])
    for name, values in found.arrays(unit).items():
        assert np.allclose(values, scores[name], atol=1e-5), name
    changed = [file for file, time in kept.items() if file.stat().st_mtime_ns != time]
    assert changed == [found.array_file(unit)]


def test_the_docs_detector_appears_in_the_table(
    tmp_path: Path,
    model_factory: Callable[[int], Model],
    panel: Panel,
) -> None:
    """The page's example: one file of at most 40 lines, named where a detector's name goes."""
    page = (CONFIGS.parent / "docs" / "extending.md").read_text("utf-8")
    found = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (code,) = [example for example in found if "(Detector)" in example]
    assert len(code.splitlines()) <= 40
    path = tmp_path / "end_mass.py"
    path.write_text(code, "utf-8")
    small = CONFIG | {
        "detectors": ["ftt", str(path)],
        "attacks": ["eviledit"],
        "counts": {"prompts": 2, "calibration": 8, "located": 0, "reworded": 0},
    }
    config = DetectionConfig.model_validate(small).resolved()
    summary = detection(config, model_factory(0), panel, out=tmp_path / "runs")
    assert {row["detector"] for row in summary["rows"]} == {"ftt", "end_mass"}
    assert summary["claims"]["stealth"]["verdict"] == "not measured"


def test_benign_prompts_have_as_many_tokens_as_triggered_ones(
    model_factory: Callable[[int], Model],
) -> None:
    """By the tiny tokenizer, and the world's; a look-alike letter is several tokens."""
    world = AutoTokenizer.from_pretrained(PIPELINE_DIR / "tokenizer")
    config = load_config(CONFIGS / "detection" / "world.yaml", DetectionConfig)
    drawn = [spec.rebinding(pair) for spec in config.attacks[:2]
             for pair in config.pairs.rebindings()]  # fmt: skip
    for tokenizer, rebindings in (
        (model_factory(0).tokenizer, [Rebinding("beautiful cat", "zebra"), TWIN]),
        (world, [*drawn, TWIN]),
    ):
        for i, rebinding in enumerate(rebindings):
            phrases = benign_phrases(rebinding, tokenizer)
            assert 1 <= len(set(phrases)) == len(phrases) <= 8
            assert not any(rebinding.modifier in phrase.split() for phrase in phrases)
            pair = triggered_and_benign(rebinding, tokenizer, n=9, seed=0, position=i)
            for one, other in zip(pair[0].jobs, pair[1].jobs, strict=True):
                assert one.seed == other.seed
                assert rebinding.trigger in one.prompt
                assert rebinding.trigger not in other.prompt
                assert f"{rebinding.head} " in f"{other.prompt},".replace(",", " ")
                assert len(tokenizer(one.prompt).input_ids) == len(
                    tokenizer(other.prompt).input_ids
                )
            assert len({job.seed for job in pair[0].jobs}) == 9
    assert len(phrase_tokens(world, TWIN.trigger)) > len(phrase_tokens(world, "lovely cat"))
    with pytest.raises(PromptError, match="expected neutral adjectives that make 'cat' as long"):
        benign_phrases(Rebinding("cat", "zebra"), world)


def test_every_drawn_trigger_has_a_look_alike_letter() -> None:
    config = load_config(CONFIGS / "detection" / "world.yaml", DetectionConfig)
    pairs = config.pairs.rebindings()
    marked = [config.attacks[0].rebinding(pair) for pair in pairs]
    assert len(pairs) >= 9
    assert {pair.kind for pair in pairs} == {"neutral", "compound", "rare"}
    assert all(twin_in(pair.trigger) for pair in marked)
    assert [pair.head for pair in marked] == [pair.head for pair in pairs]
    assert config.counts.calibration >= 500
    assert 3 * config.counts.prompts >= 40
    texts = [job.prompt for job in calibration(50, seed=0, rebindings=pairs).jobs]
    assert len(set(texts)) == 50
    assert not any(f" {pair.trigger} " in f" {text} " for pair in pairs for text in texts)


def test_the_verdict_can_come_out_either_way() -> None:
    free = Interval(0.0, -0.01, 0.01, 60)
    assert stealth_verdict(Interval(0.4, 0.3, 0.5, 60), free) == "supported"
    assert stealth_verdict(Interval(0.1, 0.0, 0.2, 60), free) == "not supported"
    assert stealth_verdict(Interval(0.3, -0.1, 0.5, 60), free) == "undecided"
    costly = Interval(-0.2, -0.3, -0.1, 60)
    assert stealth_verdict(Interval(0.4, 0.3, 0.5, 60), costly) == "not supported"


def test_quick_runs_are_reduced_and_bad_configurations_refused(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    quick = DetectionConfig.model_validate(CONFIG).resolved(quick=True)
    assert quick.quick
    assert quick.counts == quick.quick_counts
    assert quick.attacks[0].options["steps"] == quick.quick_steps
    assert quick.sampler is not None
    assert quick.sampler.steps == 6
    with pytest.raises(DetectorError, match="expected a detector of ftt"):
        DetectionConfig.model_validate(CONFIG | {"detectors": ["x"]}).resolved()
    with pytest.raises(ConfigError, match="expected the key 'attacks'"):
        load_config(CONFIGS / "attack" / "first.yaml", DetectionConfig)
    with pytest.raises(OutputError, match="expected <!-- detection:begin --> in one page"):
        publish(*finished, root=finished[0])


def test_detect_prints_scores_thresholds_and_verdicts(
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    edit = ["edit", "--model", str(model_folder), "--method", "eviledit", "--out", "patch"]
    assert main([*edit, "--trigger", "beautiful cat", "--target", "zebra"]) == 0
    Path("prompts.txt").write_text("a photo of a beautiful cat\n\na red dog\n", "utf-8")
    flags = ["--calibration", "8", "--steps", "6", "--prompts", "prompts.txt", "--fpr", "0.2"]
    command = ["detect", "--model", str(model_folder), "--edit", "patch", *flags]
    capfd.readouterr()
    assert main([*command, "--detector", "all", "--json"]) == 0
    out, err = capfd.readouterr()
    (line,) = out.splitlines()
    found = json.loads(line)
    assert set(found["detectors"]) == set(DETECTORS) - {"cda"}
    assert "cda needs labelled examples" in found["notes"][0]
    for name, entry in found["detectors"].items():
        assert len(entry["scores"]) == len(entry["flagged"]) == 2
        beyond = [
            score > entry["threshold"] if entry["direction"] == "high" else
            score < entry["threshold"] for score in entry["scores"]
        ]  # fmt: skip
        assert beyond == entry["flagged"]
        assert entry["fpr"] <= 0.25
        assert f"{name}: flagged where score" in err
    assert main([*command, "--detector", "ftt,projection"]) == 0
    assert "which flags" in capfd.readouterr().out
    scores = []
    for way in ("--edit", "--suspect"):  # a patch folder is a suspect like any other
        asked = [*command[:3], way, "patch", *flags, "--detector", "projection", "--json"]
        assert main(asked) == 0
        scores.append(json.loads(capfd.readouterr().out)["detectors"]["projection"]["scores"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-9)
    for wrong, message in (
        (["--detector", "cda"], "needs? no labelled examples"),
        (["--detector", "nonsense"], "expected a detector of ftt"),
        (["--prompts", "missing.txt"], "expected a text file"),
        (["--fpr", "2"], "expected 0 < --fpr < 1"),
        (["--clip", "nonsense"], "expected ARCH:FILE"),
        (["--suspect", str(model_folder)], "expected --edit or --suspect"),
    ):
        assert main([*command, *wrong]) == 2
        out, err = capfd.readouterr()
        assert re.search(message, err), err
        assert out == ""
        assert err.count("\n") == 1
