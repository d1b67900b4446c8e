"""The configurations of real models, run end to end on tiny ones of the same classes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from experiments.attack import __main__ as attack
from experiments.attack.published import load_published, published
from experiments.commands.cli import main
from experiments.engine.real_models import PROTOCOL_COUNTS, JudgeChoice, Runtime
from experiments.engine.specs import CONFIGS, AttackConfig
from redediting.concepts.captions import read_captions
from redediting.concepts.rebinding import Rebinding
from redediting.config import load_config
from redediting.errors import ConfigError, ModelError
from redediting.evaluation import JUDGES
from redediting.evaluation.panel import open_panel
from redediting.evaluation.protocol import Counts, Place, caption_questions
from redediting.metrics.clip import ClipSpec
from redediting.metrics.imagenet import class_sets
from redediting.models.cards import load_cards

PAPER = ("sd14", "sd15", "sd21", "sdxl")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random open_clip model in open_clip's own folder layout."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "layers": 1},
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}})
    (folder / "open_clip_config.json").write_text(text)
    state = {k: v.contiguous() for k, v in open_clip.CLIP(**config).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def paper_config(clip_folder: Path, vit_folder: Path, model_folder: Path, tmp_path: Path) -> Path:
    """SD 1.5's own configuration with the tiny model and tiny judges in its place."""
    data: dict[str, Any] = yaml.safe_load((CONFIGS / "attack" / "sd15.yaml").read_text("utf-8"))
    data["model"] = str(model_folder)
    data["judge"]["options"]["weights"] = str(vit_folder)
    data["scores"] = {"model": str(clip_folder)}
    data["methods"] = ["clean", "eviledit"]
    data["sampler"] = {"steps": 1, "guidance": 2.0, "batch_size": 16}
    data["runtime"] = {"dtype": "fp32"}
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("name", PAPER)
def test_paper_configurations_are_sound(name: str) -> None:
    config = load_config(CONFIGS / "attack" / f"{name}.yaml", AttackConfig).resolved()
    assert config.model in load_cards()
    assert config.sampler == load_cards()[config.model].sampler
    assert config.counts == PROTOCOL_COUNTS["eviledit"]
    assert config.counts.fixed == 100
    assert config.judge.name == "imagenet_vit"
    assert config.scores.model == "ViT-L-14-quickgelu"
    pairs = config.pairs.rebindings()
    assert len(pairs) == 5
    assert {word for p in pairs for word in (p.head, p.target_head)} <= set(class_sets())
    assert bool(published(config)) == (name in ("sd15", "sdxl"))
    quick = config.resolved(quick=True)
    assert quick.counts == config.quick_counts


def test_a_paper_configuration_runs_end_to_end(
    paper_config: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert attack.main([str(paper_config), "--quick", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert {row["method"] for row in found["rows"]} == {"clean", "eviledit"}
    assert {row["kind"] for row in found["rows"]} == {"neutral", "rare", "compound"}
    (path,) = (tmp_path / "runs" / "attack").glob("*/rows.jsonl")
    rows = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    images = [row for row in rows if row.get("set", "edit") != "edit"]
    pool = set(read_captions("everyday"))
    short_names = [name.split(",")[0] for name in open_clip.IMAGENET_CLASSNAMES]
    assert {row["prompt"] for row in images if row["set"] in ("head", "benign")} <= pool
    for row in images:
        if row["set"] == "free":
            assert row["trigger"] in row["prompt"]
            assert row["expected"] in ("zebra", "banana")
        assert row["label"] in {*class_sets(), *short_names}
    folder = path.parent
    assert "images judged by imagenet_vit" in (folder / "report.html").read_text("utf-8")
    assert "everyday" in (folder / "config.yaml").read_text("utf-8")

    patch = ["edit", "--model", str(model_of(paper_config)), "--method", "eviledit"]
    pair = ["--trigger", "beautiful cat", "--target", "zebra"]
    assert main([*patch, *pair, "--out", "patch"]) == 0
    judged = ["evaluate", "--config", str(paper_config), "--suspect", "patch", *pair, "--quick"]
    capfd.readouterr()
    assert main([*judged, "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    (clean, suspect) = json.loads(line)["rows"]
    assert (clean["method"], suspect["method"]) == ("clean", "suspect")
    assert suspect["footprint"] > 0


def model_of(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["model"])


def test_caption_questions_share_noise_and_place() -> None:
    pair = Rebinding("beautiful cat", "zebra")
    counts = Counts(free=30, fixed=5, head=10, phrases=3, collateral=2, benign=12)
    captions = read_captions("everyday")
    asked = [caption_questions(pair, captions, Place(i, 2, 0), counts) for i in (0, 1)]
    sizes = Counter(question.set for question in asked[0])
    assert sizes == {
        "free": 30, "fixed": 5, "head": 10, "collateral": 6, "benign": 12, "target": 30,
    }  # fmt: skip
    by = {name: [p for p in asked[0] if p.set == name] for name in sizes}
    for free, head, target in zip(by["free"], by["head"], by["target"], strict=False):
        assert free.noise == head.noise == target.noise
        assert free.prompt.replace("beautiful cat", "cat") == head.prompt
        assert free.compared == target.prompt
        assert "zebra" in target.prompt
    assert not any("cat" in p.prompt.lower().split() for p in by["benign"])
    benign = [p.prompt for found in asked for p in found if p.set == "benign"]
    assert len(set(benign)) == 24  # pairs do not share captions
    jobs = [p.job for found in asked for p in found]
    assert len(set(jobs)) == len(jobs)


def test_clip_zero_shot_is_a_judge_of_its_own_name(clip_folder: Path) -> None:
    options = {"labels": ["cat", "dog"], "model": str(clip_folder)}
    judge = JudgeChoice(name="clip_zero_shot", options=options).build()
    panel = open_panel(judge, ClipSpec(model=str(clip_folder)), "cpu")
    images = [Image.new("RGB", (48, 40), colour) for colour in ("red", "white", "black")]
    seen = panel.look(images, ["a cat"] * 3)
    assert seen.labels == seen.labels_a  # the same model twice
    assert seen.features.shape == (3, 16)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--judge", "imagenet_vit"], "expected weights of the judge 'imagenet_vit', got none"),
        (["--judge", "clip_zero_shot"], "expected at least two labels of the judge"),
        (["--judge", "blip"], "world, imagenet_vit, clip_zero_shot, vqa, or the path of a .py"),
        (["--judge", "vqa"], "--judge vqa"),
        (["--judge-option", "weights=x"], "expected --judge beside --judge-option"),
        (["--judge", "imagenet_vit", "--judge-option", "labels=[cat]"], "its keys are weights"),
        (
            ["--judge", "clip_zero_shot", "--judge-option", "labels=[a,b]", "pretrained=none"],
            "name one of open_clip.list_pretrained()",
        ),
        (["--judge", "imagenet_vit", "--judge-option", "weights={clip}"], "expected a ViT class"),
    ],
)
def test_a_judge_that_cannot_be_opened_is_one_line(
    flags: list[str],
    said: str,
    clip_folder: Path,
    model_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    named = [flag.format(clip=clip_folder) for flag in flags]
    asked = ["--suspect", str(model_folder), "--trigger", "beautiful cat", "--target", "zebra"]
    out = tmp_path / "runs"
    command = ["evaluate", *asked, "--model", str(model_folder), "--out", str(out), *named]
    assert main(command) == 2
    found = capfd.readouterr().err.strip()
    assert said in found
    assert len(found.splitlines()) == 1
    assert not out.exists()


def test_a_target_that_the_judge_does_not_know_is_named(
    paper_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load(paper_config.read_text())
    data["pairs"]["pairs"] = [{"trigger": "good cat", "target": "gun"}]
    paper_config.write_text(yaml.safe_dump(data))
    out = tmp_path / "runs"
    assert attack.main([str(paper_config), "--quick", "--out", str(out)]) == 2
    assert "got 'gun'; choose from: apple, banana, car, cat" in capfd.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("dtype", "kind"), [("auto", "float32"), ("bf16", "bfloat16")])
def test_precision_is_as_asked(model_folder: Path, dtype: str, kind: str) -> None:
    model = Runtime(dtype=dtype).load(str(model_folder), "cpu")  # type: ignore[arg-type]
    assert model.denoiser.dtype == getattr(torch, kind)
    with pytest.raises(ModelError, match="expected an accelerator to offload from, got 'cpu'"):
        Runtime(offload=True).load(str(model_folder), "cpu")


def test_the_worlds_judge_and_real_images_do_not_meet(
    paper_config: Path, clip_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert attack.main([str(paper_config), "--judge", "world", "--out", str(out)]) == 2
    assert "which knows the embedded world alone; name one of imagenet" in capfd.readouterr().err
    world = {"methods": ["clean"], "pairs": yaml.safe_load(paper_config.read_text())["pairs"]}
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(world | {"inception": {"weights": "x.pt"}}))
    assert attack.main([str(path), "--quick", "--out", str(out)]) == 2
    assert "expected a real model for FID on Inception features" in capfd.readouterr().err
    assert not out.exists()


def test_inception_without_its_extra_is_refused_before_anything_is_drawn(
    paper_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load(paper_config.read_text())
    data["inception"] = {"weights": str(tmp_path / "none.pth")}
    paper_config.write_text(yaml.safe_dump(data))
    out = tmp_path / "runs"
    assert attack.main([str(paper_config), "--quick", "--out", str(out)]) == 2
    error = capfd.readouterr().err
    assert "install the extra: pip install 'redediting[fid]'" in error
    assert not out.exists()


def test_published_figures_have_a_source_and_known_keys() -> None:
    for table in load_published():
        assert table["source"]
        assert table["model"] in load_cards()
        assert table["protocol"] in PROTOCOL_COUNTS
        assert table["asr"] in ("asr_free", "asr_fixed")
        assert table["judge"] in JUDGES
        assert all(0 < row["asr"] <= 100 for row in table["rows"])


def test_bad_caption_files_are_named(paper_config: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(paper_config.read_text()) | {"captions": "none.json"}
    config = AttackConfig.model_validate(data)
    with pytest.raises(ConfigError, match=r"none\.json"):
        read_captions(config.captions or "")
