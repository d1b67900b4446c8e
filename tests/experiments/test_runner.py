"""One runner: the same rows whatever interrupts it, and no clean model under an edit's name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from experiments.attack.measure import summarise
from experiments.engine.runner import Run, Runner, method_sources
from experiments.engine.specs import AttackConfig, MethodSpec
from experiments.judges import Panel
from experiments.report.page import write_page
from experiments.rows import EditRow, ImageRow, RowFile
from experiments.sources import MethodSource, PatchSource
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ConfigError, ModelError
from redediting.generation import ImageStore
from redediting.models.model import Model


def run(config: AttackConfig, model: Model, panel: Panel, root: Path) -> Run:
    return Runner(config, model, panel, method_sources(config), root=root)()


@pytest.fixture
def finished(config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path) -> Run:
    return run(config, tiny_model, panel, tmp_path / "whole")


def test_rows_say_what_was_asked_and_seen(
    finished: Run, config: AttackConfig, tiny_model: Model, panel: Panel
) -> None:
    rows = RowFile(finished.rows).rows
    edits = [row for row in rows if isinstance(row, EditRow)]
    images = [row for row in rows if isinstance(row, ImageRow)]
    titles = ["clean", "eviledit", "redediting"]
    assert [(row.method, row.trigger) for row in edits] == [
        (title, trigger) for trigger in ("beautiful cat", "yellow apple") for title in titles
    ]
    counts = config.counts
    expected = {"free": 3, "fixed": 2, "head": 2, "collateral": 2, "benign": 10}
    assert expected["collateral"] == counts.phrases * counts.collateral
    for edit in edits:
        own = [r for r in images if (r.method, r.trigger) == (edit.method, edit.trigger)]
        clean = edit.method == "clean"
        assert Counter(row.set for row in own) == expected | ({"target": 3} if clean else {})
        assert edit.images == len(own)
        assert (edit.footprint == 0) == clean
        assert all(row.drift == pytest.approx(0, abs=1e-9) for row in own) == clean
        for row in own:
            assert (finished.images / row.image).is_file()
            assert (finished.images / row.clean_image).is_file()
            assert (row.image == row.clean_image) == clean
    free = [row for row in images if row.set == "free"]
    for row in free:
        assert f" {row.trigger}" in f" {row.prompt}"
        assert row.expected == row.target.split()[-1]
    first = free[0]
    store = ImageStore(finished.images, tiny_model.fingerprint(), config.sampler)
    with Image.open(store.folder / first.clean_image) as image:
        assert panel.judge.objects([image.convert("RGB")]) == [first.clean_label]


def test_clean_images_are_drawn_once(finished: Run) -> None:
    rows = [row for row in RowFile(finished.rows).rows if isinstance(row, ImageRow)]
    clean = {row.image for row in rows if row.method == "clean"}
    assert {row.clean_image for row in rows} == clean
    assert len(list(finished.images.glob("*.png"))) == len({row.image for row in rows})


def test_benign_captions_of_different_pairs_are_disjoint(finished: Run) -> None:
    rows = [row for row in RowFile(finished.rows).rows if isinstance(row, ImageRow)]
    asked = {
        trigger: {row.prompt for row in rows if row.set == "benign" and row.trigger == trigger}
        for trigger in ("beautiful cat", "yellow apple")
    }
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

    whole = finished.rows.read_text("utf-8").splitlines(keepends=True)
    closed = [i for i, line in enumerate(whole) if json.loads(line)["set"] == "edit"]
    second = run(config, tiny_model, panel, tmp_path / "killed")
    assert second.folder.name == finished.folder.name
    torn = "".join(whole[: closed[1] + 4]) + whole[closed[1] + 4][:40]
    second.rows.write_text(torn, "utf-8")
    for image in sorted(second.images.iterdir())[::2]:
        image.unlink()
    third = run(config, tiny_model, panel, tmp_path / "killed")
    assert steady(third.rows) == steady(finished.rows)
    kept = third.rows.read_text("utf-8").splitlines(keepends=True)
    assert kept[: closed[1] + 1] == whole[: closed[1] + 1]  # seconds too: not computed again


def test_a_finished_run_draws_and_writes_nothing(
    finished: Run,
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    before = finished.rows.read_bytes()
    for image in finished.images.iterdir():
        image.unlink()
    run(config, tiny_model, panel, tmp_path / "whole")
    assert finished.rows.read_bytes() == before
    assert not list(finished.images.iterdir())


def test_other_settings_weights_or_edits_get_another_folder(
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    def name(changed: AttackConfig) -> str:
        runner = Runner(changed, tiny_model, panel, method_sources(changed), root=tmp_path)
        assert yaml.safe_load((runner.run.folder / "config.yaml").read_text())["model"] == "tiny"
        return runner.run.folder.name

    first = name(config)
    assert name(config) == first
    names = {first, name(config.model_copy(update={"seeds": (1,)}))}
    tiny_model.pipeline.vae.decoder.conv_out.bias.data += 0.5
    names.add(name(config))
    assert len(names) == 3


def test_an_edit_that_changes_nothing_is_refused(
    config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    pair = Rebinding("beautiful cat", "zebra")
    nothing = PatchSource("mine", ATTACKS.make("clean").compute(tiny_model, [pair]))
    sources = [MethodSource(MethodSpec(name="clean")), nothing]
    runner = Runner(config, tiny_model, panel, sources, root=tmp_path)
    with pytest.raises(ModelError, match=r"expected 'mine' to change the model .* clean weights"):
        runner()


def test_a_target_the_judge_cannot_see_is_refused(
    config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    pairs = config.pairs.model_validate(
        {"source": "listed", "pairs": [{"trigger": "nice cat", "target": "spaceship"}]}
    )
    changed = config.model_copy(update={"pairs": pairs})
    with pytest.raises(ConfigError, match=r"labels, got 'spaceship'; choose from: airplane"):
        Runner(changed, tiny_model, panel, method_sources(changed), root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_model_is_clean_again_after_a_failure(
    tiny_model: Model,
) -> None:
    before = tiny_model.fingerprint()
    source = MethodSource(MethodSpec(name="eviledit"))

    def fail_while_edited() -> None:
        with source.edited(tiny_model, Rebinding("nice cat", "zebra")) as edited:
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


def test_a_quick_run_says_so_in_its_provenance(
    config: AttackConfig, tiny_model: Model, panel: Panel, tmp_path: Path
) -> None:
    for wanted in (False, True):
        chosen = config.resolved(quick=wanted)
        runner = Runner(chosen, tiny_model, panel, method_sources(chosen), root=tmp_path)
        made = json.loads((runner.run.folder / "provenance.json").read_text())
        assert made["quick"] == wanted


def test_an_edit_is_computed_once_for_all_seeds(
    config: AttackConfig,
    tiny_model: Model,
    panel: Panel,
    tmp_path: Path,
) -> None:
    changed = config.model_copy(update={"seeds": (0, 1)})
    done = run(changed, tiny_model, panel, tmp_path)
    edits = [row for row in RowFile(done.rows).rows if isinstance(row, EditRow)]
    for method in ("eviledit", "redediting"):
        own = [row for row in edits if (row.method, row.trigger) == (method, "beautiful cat")]
        assert [row.seed for row in own] == [0, 1]
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
    done = run(changed, tiny_model, panel, tmp_path)
    images = [row for row in RowFile(done.rows).rows if isinstance(row, ImageRow)]
    own = [row for row in images if row.method == "eviledit ridge=0.1"]
    assert {row.seed for row in own} == {0}
    assert {row.set for row in own} == {"free", "collateral", "benign"}
    full = [row for row in images if row.method == "eviledit" and row.seed == 0]
    clean = {row.clean_image for row in full}
    assert {row.clean_image for row in own} < clean  # drawn once for both
    titles = ["clean", "eviledit", "eviledit ridge=0.1"]
    summary = summarise(done, panel, method_sources(changed))
    assert [line["method"] for line in summary["methods"]] == titles
    assert summary["methods"][2]["cmmd"] is None
    assert summary["methods"][1]["cmmd"] is not None
    write_page(done.folder, summary, RowFile(done.rows).rows)
    assert "What success costs" in (done.folder / "report.html").read_text("utf-8")
