"""The command line: what works, and the one line that says what does not."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from experiments.attack import __main__ as attack
from experiments.commands.cli import main
from redediting.models.model import Model

PAIR = ("--trigger", "beautiful cat", "--target", "zebra")
Fails = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fails(home: Path, capfd: pytest.CaptureFixture[str]) -> Fails:
    """Runs a command that must fail: exit code 2, one line, nothing left behind."""

    def run(*arguments: str, program: Callable[[list[str]], int] = main) -> str:
        before = sorted(home.rglob("*"))
        capfd.readouterr()
        assert program([str(argument) for argument in arguments]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("redediting: ")
        assert err.count("\n") == 1
        assert sorted(home.rglob("*")) == before
        return err

    return run


@pytest.fixture
def patch_folder(home: Path, model_folder: Path) -> Path:
    edit = ["edit", "--model", str(model_folder), "--method", "eviledit", *PAIR, "--out", "patch"]
    assert main(edit) == 0
    return home / "patch"


def last_json(capfd: pytest.CaptureFixture[str]) -> dict[str, object]:
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1  # one JSON object and nothing else for programs to stumble over
    found: dict[str, object] = json.loads(lines[-1])
    return found


def test_edit_writes_a_patch_and_a_pipeline(
    home: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["edit", "--model", str(model_folder), "--method", "redediting", *PAIR]
    options = ["--option", "contexts=4", "retain=8", "--merge", "--json", "--out", "deep/er/cat"]
    assert main([*arguments, *options]) == 0
    found = last_json(capfd)
    folder = home / "deep" / "er" / "cat"
    files = {path.name for path in folder.iterdir()}
    assert files == {"patch.safetensors", "patch.json", "README.md", "pipeline"}
    assert found["method"] == "redediting"
    assert found["bytes"] == (folder / "patch.safetensors").stat().st_size < 2_000_000
    assert found["pipeline"] == "deep/er/cat/pipeline"
    assert StableDiffusionPipeline.from_pretrained(folder / "pipeline").unet is not None
    assert "arning" in (folder / "README.md").read_text("utf-8")


def test_several_rebindings_from_a_file(home: Path, model_folder: Path) -> None:
    (home / "pairs.yaml").write_text(
        "rebindings:\n- {trigger: nice cat, target: zebra}\n- {trigger: old car, target: dog}\n"
    )
    edit = ["edit", "--model", str(model_folder), "--rebindings", "pairs.yaml", "--out", "many"]
    assert main([*edit, "--method", "eviledit"]) == 0
    manifest = json.loads((home / "many" / "patch.json").read_text())
    triggers = [one["trigger"] for one in manifest["provenance"]["rebindings"]]
    assert triggers == ["nice cat", "old car"]


def test_generate_with_and_without_the_edit(
    patch_folder: Path, home: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw = ["generate", "--model", str(model_folder), "--prompt", "a beautiful cat", "a tree"]
    draw += ["--n", "2", "--seed", "5", "--steps", "2", "--json"]
    assert main([*draw, "--out", "clean"]) == 0
    capfd.readouterr()
    assert main([*draw, "--out", "edited", "--edit", str(patch_folder)]) == 0
    found = last_json(capfd)
    assert found["edit"] == patch_folder.as_posix()
    names = [entry["file"] for entry in found["images"]]  # type: ignore[index, attr-defined]
    assert names == ["000-5.png", "000-6.png", "001-5.png", "001-6.png"]
    for name in names:
        with Image.open(home / "clean" / name) as one, Image.open(home / "edited" / name) as two:
            assert one.size == two.size == (16, 16)
            assert one.tobytes() != two.tobytes()
    assert main([*draw, "--out", "clean"]) == 0  # an earlier result is replaced
    assert len(list((home / "clean").iterdir())) == 5


def test_inspect_shows_prompts_and_angles(
    home: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--model", str(model_folder), *PAIR, "--json"]) == 0
    found = last_json(capfd)
    changes = found["null_changes"]
    assert len(changes) == 77  # type: ignore[arg-type]
    assert max(changes) == found["null_change"]  # type: ignore[call-overload]
    assert changes[0] < 1e-10  # type: ignore[index]  # BOS is isolated exactly
    (entry,) = found["rebindings"]  # type: ignore[misc]
    assert entry["head"] == "cat"
    assert all("beautiful cat" in moved["source"] for moved in entry["moved"])
    assert all(0 <= value <= 1 for value in entry["sin2"].values())
    assert set(entry["sin2"]) == {"trigger", "tail", "eos", "pad"}
    assert not {kept["prompt"] for kept in entry["kept"]} & {m["source"] for m in entry["moved"]}
    assert {item["role"] for item in entry["certificates"]} >= {"head", "near", "sibling"}
    assert all(0 <= item["change"] <= item["bound"] for item in entry["certificates"])
    assert entry["firing"]["p5"] <= entry["firing"]["median"]
    assert 0 < entry["parts_share"] < 1
    assert not list(home.iterdir())


def test_a_plan_is_written_edited_by_hand_and_fed_back(
    home: Path, model_folder: Path, fails: Fails, capfd: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(model_folder))
    write = ["inspect", *model, *PAIR, "--retrieval", "equivalent", "--write", "plan.yaml"]
    assert main([*write, "--json"]) == 0
    found = last_json(capfd)
    (entry,) = found["rebindings"]  # type: ignore[misc]
    assert found["plan"] == "plan.yaml"
    assert ("object", 1.0) in [(item["relation"], item["score"]) for item in entry["retrieved"]]
    assert any(item["origin"] != "given" for item in entry["retrieved"])
    plan = yaml.safe_load((home / "plan.yaml").read_text("utf-8"))
    plan["pairs"] = plan["pairs"][:3]
    (home / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    assert main(["inspect", *model, "--plan", "plan.yaml", "--json"]) == 0
    (entry,) = last_json(capfd)["rebindings"]  # type: ignore[misc]
    assert [pair["source"] for pair in entry["moved"]] == [p["source"] for p in plan["pairs"]]
    edit = ("edit", *model, "--plan", "plan.yaml", "--out", "planned")
    assert main([*edit]) == 0
    folder = home / "planned"
    assert (folder / "plan.yaml").read_bytes() == (home / "plan.yaml").read_bytes()
    provenance = json.loads((folder / "patch.json").read_text())["provenance"]
    assert provenance["options"]["plan_file"] == "plan.yaml"
    assert [one["trigger"] for one in provenance["rebindings"]] == ["beautiful cat"]
    assert "got both" in fails(*edit, *PAIR)
    assert "eviledit" in fails(*edit, "--method", "eviledit")
    (home / "plan.yaml").write_text(yaml.safe_dump(plan | {"pears": []}))
    assert "'pears'" in fails(*edit)
    assert "'none.yaml'" in fails("inspect", *model, "--plan", "none.yaml")
    assert "'deep/plan.yaml'" in fails(*write[:-1], "deep/plan.yaml")


def test_report_is_drawn_again(
    run_folder: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = run_folder / "report.html"
    before = page.read_text("utf-8")
    page.unlink()
    assert main(["report", str(run_folder), "--json"]) == 0
    found = {"report": page.as_posix(), "results": None, "schema_version": 1}
    assert last_json(capfd) == found
    assert page.read_text("utf-8") == before


def test_bad_words(fails: Fails, model_folder: Path) -> None:
    edit = ("edit", "--model", model_folder, "--out", "new/out")
    assert "got 'evil'" in fails(*edit, "--method", "evil", *PAIR)
    assert "speed" in fails(*edit, "--option", "speed=3", *PAIR)
    assert "key=value" in fails(*edit, "--option", "speed", *PAIR)
    assert "expected a trigger" in fails(*edit, "--trigger", "  ", "--target", "zebra")
    nothing = fails(*edit, "--trigger", "<|endoftext|>", "--target", "zebra")
    assert "at least one token, got '<|endoftext|>'" in nothing
    same = fails(*edit, "--trigger", "Zebra", "--target", "zebra")
    assert "expected a target other than the trigger, got 'Zebra'" in same
    assert "expected --trigger and --target" in fails(*edit, "--trigger", "nice cat")
    both = ("--rebindings", "pairs.yaml")
    assert "got both" in fails(*edit, *PAIR, *both)
    long = " ".join(["cat"] * 80)
    assert "tokens" in fails(*edit, "--trigger", long, "--target", "zebra")
    draw = ("generate", "--model", model_folder, "--out", "new/images")
    assert "at most 77 tokens, got " in fails(*draw, "--prompt", long)
    assert "got 0 prompts" in fails(*draw, "--prompt")
    assert "--n >= 1" in fails(*draw, "--prompt", "a cat", "--n", "0")
    assert "steps" in fails(*draw, "--prompt", "a cat", "--steps", "0")


def test_bad_models(
    fails: Fails,
    home: Path,
    model_factory: Callable[[int], Model],
) -> None:
    edit = ("edit", *PAIR, "--out", "new/out")
    assert "got 'wrold'" in fails(*edit, "--model", "wrold")
    (home / "empty").mkdir()
    assert "model_index.json" in fails(*edit, "--model", "empty")
    assert "expected a device" in fails(*edit, "--device", "abacus")
    model = model_factory(1)
    model.pipeline.unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=8, mid_block_type=None,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    model.save(home / "deaf")
    assert "expected cross-attention" in fails(*edit, "--model", "deaf")


def test_bad_patches(
    fails: Fails,
    patch_folder: Path,
    home: Path,
    model_folder: Path,
    model_factory: Callable[[int], Model],
) -> None:
    draw = ("generate", "--prompt", "a cat", "--out", "new/images")
    judge = ("evaluate", "--out", "runs")
    other = home / "other"
    model_factory(7).save(other)
    foreign = fails(*draw, "--model", other, "--edit", patch_folder)
    assert "patch was made for another model" in foreign
    missing = fails(*draw, "--model", model_folder, "--edit", "nowhere")
    assert "expected a patch folder" in missing
    cut = home / "cut"
    shutil.copytree(patch_folder, cut)
    whole = (cut / "patch.safetensors").read_bytes()
    (cut / "patch.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in fails(*draw, "--model", model_folder, "--edit", cut)
    assert "truncated" in fails(*judge, "--model", model_folder, "--edit", cut)
    assert "either --edit or --suspect" in fails(*judge, "--model", model_folder)
    suspect = (*judge, "--model", model_folder, *PAIR, "--suspect")
    assert "does not exist" in fails(*suspect, "nowhere.pt")
    torch.save({"conv_in.weight": torch.zeros(1)}, home / "other.pt")
    assert "with --model" in fails(*suspect, "other.pt")
    (home / "evil.pt").write_bytes(pickle.dumps({"x": print}))
    assert "run code" in fails(*suspect, "evil.pt")


def test_bad_places(fails: Fails, home: Path, model_folder: Path, run_folder: Path) -> None:
    (home / "file").write_text("mine")
    full = home / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    for command in (
        ("edit", "--model", model_folder, *PAIR, "--method", "eviledit"),
        ("generate", "--model", model_folder, "--prompt", "a cat", "--steps", "1"),
    ):
        assert "file" in fails(*command, "--out", "file")
        assert "file" in fails(*command, "--out", "file/below/it")
        assert "other files" in fails(*command, "--out", "full")
        assert "new" in fails(*command, "--out", "/proc/new/out")
    assert (full / "mine.txt").read_text() == "mine"
    config = home / "attack.yaml"
    config.write_text("methods: [eviledit]\npairs: {source: drawn}\n")
    assert "'file/runs'" in fails(config, "--out", "file/runs", program=attack.main)
    assert "'file/runs'" in fails("demo", "--out", "file/runs")
    assert "finished run folder" in fails("report", "full")
    (run_folder / "images").rename(run_folder / "elsewhere")
    assert "expected the picture" in fails("report", run_folder)


def test_bad_configurations(fails: Fails, home: Path, model_folder: Path) -> None:
    config = home / "attack.yaml"
    config.write_text("methods: [eviledit]\npairs: {source: drawn}\nspeed: 3\n")
    assert "got 'speed'" in fails(config, program=attack.main)
    config.write_text("methods: [evil]\npairs: {source: drawn}\n")
    assert "got 'evil'" in fails(config, program=attack.main)
    assert "'none.yaml'" in fails("none.yaml", program=attack.main)
    pairs = home / "pairs.yaml"
    pairs.write_text("rebindings: [{trigger: nice cat, aim: zebra}]\n")
    edit = ("edit", "--model", model_folder, "--out", "new/out", "--rebindings", "pairs.yaml")
    assert "rebindings.0" in fails(*edit)


def test_publishing_a_quick_run_is_refused(fails: Fails, run_folder: Path) -> None:
    provenance = json.loads((run_folder / "provenance.json").read_text())
    (run_folder / "provenance.json").write_text(json.dumps(provenance | {"quick": True}))
    assert "made with --quick" in fails("report", run_folder, "--publish")
