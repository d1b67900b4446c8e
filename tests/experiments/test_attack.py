"""One runner: the same rows whatever interrupts it, and no clean model under an edit's name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from experiments.attack.measure import measure, run_config
from experiments.engine.specs import AttackConfig, MethodSpec
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ConfigError, ModelError
from redediting.evaluation.entries import AttackEntry, PatchEntry
from redediting.evaluation.measure import Measurement, Run, UnitKey
from redediting.evaluation.panel import Panel
from redediting.generation import ImageStore
from redediting.metrics.base import ImageRecord
from redediting.models.model import Model


def run(config: AttackConfig, model: Model, panel: Panel, root: Path) -> Run:
    return run_config(config, model, panel, config.entries(), out=root)


def pictures(done: Run) -> list[tuple[UnitKey, ImageRecord]]:
    return [(key, image) for key, own in done.units.items() for image in own.images]


@pytest.fixture
def finished(config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path) -> Run:
    return run(config, tiny_model, panel, tmp_path / "whole")


def test_rows_say_what_was_asked_and_seen(
    finished: Run, config: AttackConfig, tiny_model: Model, panel: Panel
) -> None:
    titles = ["clean", "eviledit", "redediting"]
    assert [(key.method, key.trigger) for key in finished.units] == [
        (title, trigger) for trigger in ("beautiful cat", "yellow apple") for title in titles
    ]
    counts = config.counts
    expected = {"free": 3, "fixed": 2, "head": 2, "collateral": 2, "benign": 10}
    assert expected["collateral"] == counts.phrases * counts.collateral
    files = finished.store.images
    for key, measured in finished.units.items():
        clean = key.method == "clean"
        own = measured.images
        assert Counter(image.set for image in own) == expected | ({"target": 3} if clean else {})
        assert (measured.edit.footprint == 0) == clean
        assert all(i.values["drift"] == pytest.approx(0, abs=1e-9) for i in own) == clean
        for image in own:
            assert (files / image.image).is_file()
            assert (files / image.clean_image).is_file()
            assert (image.image == image.clean_image) == clean
        for image in measured.of("free"):
            assert f" {key.trigger}" in f" {image.prompt}"
            assert image.expected == key.target.split()[-1]
    first = next(iter(finished.units.values())).of("free")[0]
    store = ImageStore(files, tiny_model.fingerprint(), config.sampler)
    with Image.open(store.folder / first.clean_image) as picture:
        assert panel.judge.objects([picture.convert("RGB")]) == [first.clean_label]


def test_clean_images_are_drawn_once(finished: Run) -> None:
    found = pictures(finished)
    clean = {image.image for key, image in found if key.method == "clean"}
    assert {image.clean_image for _, image in found} == clean
    files = list(finished.store.images.glob("*.png"))
    assert len(files) == len({image.image for _, image in found})


def test_benign_captions_of_different_pairs_are_disjoint(finished: Run) -> None:
    asked: dict[str, set[str]] = {"beautiful cat": set(), "yellow apple": set()}
    for key, image in pictures(finished):
        if image.set == "benign":
            asked[key.trigger].add(image.prompt)
    assert all(asked.values())
    assert not asked["beautiful cat"] & asked["yellow apple"]


def test_a_killed_run_continues_and_ends_with_the_same_rows(
    finished: Run,
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    def steady(path: Path) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    rows = finished.store.folder / "rows.jsonl"
    whole = rows.read_text("utf-8").splitlines(keepends=True)
    closed = [i for i, line in enumerate(whole) if "closed" in json.loads(line)]
    second = run(config, tiny_model, panel, tmp_path / "killed").store
    assert second.folder.name == finished.store.folder.name
    torn = "".join(whole[: closed[1] + 4]) + whole[closed[1] + 4][:40]
    (second.folder / "rows.jsonl").write_text(torn, "utf-8")
    for image in sorted(second.images.iterdir())[::2]:
        image.unlink()
    third = run(config, tiny_model, panel, tmp_path / "killed").store.folder / "rows.jsonl"
    assert steady(third) == steady(rows)
    kept = third.read_text("utf-8").splitlines(keepends=True)
    assert kept[: closed[1] + 1] == whole[: closed[1] + 1]  # seconds too: not computed again


def test_a_finished_run_draws_and_writes_nothing(
    finished: Run,
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    rows = finished.store.folder / "rows.jsonl"
    before = rows.read_bytes()
    for image in finished.store.images.iterdir():
        image.unlink()
    run(config, tiny_model, panel, tmp_path / "whole")
    assert rows.read_bytes() == before
    assert not list(finished.store.images.iterdir())


def test_other_settings_weights_or_edits_get_another_folder(
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Measurement, "__call__", lambda self: None)  # names alone

    def name(changed: AttackConfig) -> str:
        folder = run(changed, tiny_model, panel, tmp_path).store.folder
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"] == "tiny"
        return folder.name

    first = name(config)
    assert name(config) == first
    names = {first, name(config.model_copy(update={"seeds": (1,)}))}
    tiny_model.pipeline.vae.decoder.conv_out.bias.data += 0.5
    names.add(name(config))
    assert len(names) == 3
    for quick in (False, True):
        store = run(config.resolved(quick=quick), tiny_model, panel, tmp_path).store
        assert json.loads((store.folder / "provenance.json").read_text())["quick"] == quick


def test_an_edit_that_changes_nothing_is_refused(
    config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    pair = Rebinding("beautiful cat", "zebra")
    control = ATTACKS.make("clean")
    entries = [AttackEntry(control), PatchEntry("mine", control.compute(tiny_model, [pair]))]
    with pytest.raises(ModelError, match=r"expected 'mine' to change the model .* clean weights"):
        run_config(config, tiny_model, panel, entries, out=tmp_path)


def test_a_target_the_judge_cannot_see_is_refused(
    config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    pairs = config.pairs.model_validate(
        {"source": "listed", "pairs": [{"trigger": "nice cat", "target": "spaceship"}]}
    )
    changed = config.model_copy(update={"pairs": pairs})
    with pytest.raises(ConfigError, match=r"labels, got 'spaceship'; choose from: airplane"):
        run(changed, tiny_model, panel, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_model_is_clean_again_after_a_failure(
    tiny_model: Model,
) -> None:
    before = tiny_model.fingerprint()
    entry = AttackEntry(ATTACKS.make("eviledit"))

    def fail_while_edited() -> None:
        with entry.edited(tiny_model, Rebinding("nice cat", "zebra")) as edited:
            assert edited.model.fingerprint() != before
            raise KeyError("drawing failed")

    with pytest.raises(KeyError, match="drawing failed"):
        fail_while_edited()
    assert tiny_model.fingerprint() == before


def test_summary_and_page(run_folder: Path) -> None:
    summary = json.loads((run_folder / "summary.json").read_text("utf-8"))
    assert summary["n_pairs"] == 2
    assert summary["n_seeds"] == 1
    titles = ["clean", "eviledit", "redediting"]
    assert [method["method"] for method in summary["methods"]] == titles
    assert [row["method"] for row in summary["rows"]] == titles * 2
    for method in summary["methods"]:
        assert method["fid"] is None  # 20 images are no FID
        assert method["fid_n"] == 20
        assert method["cmmd_ci"][0] <= method["cmmd"] <= method["cmmd_ci"][1]
    page = (run_folder / "report.html").read_text("utf-8")
    assert "http" not in page  # self-contained
    assert page.count("data:image/webp;base64,") > 40
    assert "beautiful cat → zebra" in page


def test_an_edit_is_computed_once_for_all_seeds(
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    done = run(config.model_copy(update={"seeds": (0, 1)}), tiny_model, panel, tmp_path)
    for method in ("eviledit", "redediting"):
        own = {
            key.seed: measured.edit
            for key, measured in done.units.items()
            if (key.method, key.trigger) == (method, "beautiful cat")
        }
        assert list(own) == [0, 1]
        assert own[0].seconds == own[1].seconds  # the same edit, not another one
        assert own[0].weights == own[1].weights
        assert 0 < own[0].rank <= 32
        assert own[0].energy > 0


def test_swept_settings_are_measured_on_few_sets_and_once(
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    swept = MethodSpec(name="eviledit", sweep=[{"ridge": [0.1]}])
    changed = config.model_copy(update={"methods": (swept,), "seeds": (0, 1)}).resolved()
    summary = measure(changed, tiny_model, panel, changed.entries(), out=tmp_path)
    found = pictures(run(changed, tiny_model, panel, tmp_path))
    own = [(key, image) for key, image in found if key.method == "eviledit ridge=0.1"]
    assert {key.seed for key, _ in own} == {0}
    assert {image.set for _, image in own} == {"free", "collateral", "benign"}
    full = {i.clean_image for key, i in found if (key.method, key.seed) == ("eviledit", 0)}
    assert {image.clean_image for _, image in own} < full  # drawn once for both
    titles = ["clean", "eviledit", "eviledit ridge=0.1"]
    assert [line["method"] for line in summary["methods"]] == titles
    assert summary["methods"][2]["cmmd"] is None
    assert summary["methods"][1]["cmmd"] is not None
    assert "What success costs" in Path(summary["report"]).read_text("utf-8")
