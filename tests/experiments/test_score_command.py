"""``redediting score``: one JSON object, files of --out, and one line for whatever is wrong."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from experiments.commands.cli import main
from redediting.metrics.imagenet import ImageNetViT
from redediting.world.scenes import Scene, Thing, render

HEAD = "file,prompt,seed,role,trigger,target,head\n"
LIST = HEAD + (
    "t.png,a photo of a nice cat,1,triggered,nice cat,zebra,cat\n"
    "h.png,a photo of a cat,1,head,nice cat,zebra,cat\n"
    'b.jpg,"a car, on the beach",2,benign,,,\n'
    'r.png,"a car, on the beach",2,reference,,,\n'
)
Fails = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with four images and their list."""
    (tmp_path / "images").mkdir()
    shown = {"t.png": "zebra", "h.png": "cat", "b.jpg": "car", "r.png": "car"}
    for file, concept in shown.items():
        picture = Image.fromarray(render(Scene((Thing(concept),), "beach"), 1))
        picture.save(tmp_path / "images" / file)
    (tmp_path / "list.csv").write_text(LIST, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fails(home: Path, capfd: pytest.CaptureFixture[str]) -> Fails:
    """Scores a list that must be refused: exit code 2, one line, nothing left behind."""

    def run(text: str = LIST, *options: str) -> str:
        (home / "list.csv").write_text(text, "utf-8")
        before = sorted(home.rglob("*"))
        arguments = ["score", "images", "--csv", "list.csv", "--out", "new/out", *options]
        assert main(arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        line = err.splitlines()[-1]
        assert line.startswith("redediting: ")
        assert "Traceback" not in err
        assert sorted(home.rglob("*")) == before
        return line

    return run


def test_one_object_and_the_files(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    score = ["score", "images", "--csv", "list.csv", "--json", "--out"]
    assert main([*score, "first"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["schema_version"] == 1
    assert found["methods"][-1]["asr_fixed"] == found["methods"][-1]["acc"] == 1.0
    assert found["not_measured"]["asr_free"].startswith("no rows of role triggered")
    saved = json.loads((home / "first" / "score.json").read_text("utf-8"))
    assert saved == {k: v for k, v in found.items() if k not in ("out", "schema_version")}
    lines = (home / "first" / "images.jsonl").read_text("utf-8").splitlines()
    seen = {(row["method"], row["image"]): row["label"] for row in map(json.loads, lines)}
    assert seen == {("images", "t.png"): "zebra", ("images", "h.png"): "cat",
                    ("images", "b.jpg"): "car", ("clean", "r.png"): "car"}  # fmt: skip
    assert main([*score[:4], "--beside", "first"]) == 0
    table = capfd.readouterr().out
    assert table.count("100.0% (") == 4  # two metrics in two columns
    assert "not measured: no rows of role collateral" in " ".join(table.split())


def test_bad_lists(fails: Fails, home: Path) -> None:
    def change(old: str, new: str) -> str:
        assert old in LIST
        return fails(LIST.replace(old, new, 1))

    assert "line 2: expected a file in 'images', got 'x.png', which does not exist" in change(
        "t.png", "x.png"
    )
    (home / "outside.png").write_bytes(b"")
    for outside in ("../outside.png", str(home / "outside.png")):
        assert "outside.png', which lies outside" in change("t.png", outside)
    (home / "images" / "link.png").symlink_to(home / "outside.png")
    assert "'link.png', which lies outside" in change("t.png", "link.png")
    assert "line 2: expected a role of triggered, head," in change("triggered", "trigered")
    assert "got 'trigered'" in change("triggered", "trigered")
    assert "none named 'role'" in change("role", "rôle")
    assert "'note' besides" in fails(LIST.replace("head\n", "head,note\n", 1))
    for seed in ("1.5", "-1", "one", "", str(2**64)):
        assert f"expected a seed in 0…2⁶⁴-1, got {seed!r}" in change("1,trig", f"{seed},trig")
    assert "another number; quote commas" in change('"a car, on the beach"', "a car, on the beach")
    line = LIST.splitlines()[1]
    twice = fails(f"{LIST}{line}\n")
    assert "line 6: expected one row a role and file, got 't.png' and then 't.png'" in twice
    again = fails(f"{LIST}{line.replace('t.png', 'h.png')}\n")
    assert "one row a role and prompt and seed, got 't.png' and then 'h.png'" in again
    assert "none named 'file'" in fails("")
    assert "got none among 0" in fails(HEAD)
    assert "got none among 1" in fails(HEAD + LIST.splitlines()[4])
    assert "expected 'nice cat' in a triggered prompt, got 'a photo of a cat'" in change(
        "a photo of a nice cat", "a photo of a cat"
    )
    assert "expected a trigger phrase" in change("nice cat,zebra,cat", ",zebra,cat")
    assert "expected a CSV file" in fails(LIST + '"open')
    assert "'gone.csv' (No such file" in fails(LIST, "--csv", "gone.csv")
    (home / "list.csv").unlink()
    assert main(["score", "nowhere", "--csv", "list.csv"]) == 2


def test_bad_images(fails: Fails, home: Path) -> None:
    image = home / "images" / "t.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    assert "got 't.png', which is truncated" in fails()
    image.write_text("a photo")
    assert "got 't.png', which is none that can be read" in fails()
    image.write_bytes(b"")
    assert "got 't.png', which is none that can be read" in fails()
    Image.new("RGB", (64, 32)).save(image)
    assert "expected images of one size, 64x32 as 't.png', got 64x64 for 'h.png'" in fails()


def test_what_the_judge_cannot_tell(fails: Fails, home: Path) -> None:
    assert "got 'zebbra'" in fails(LIST.replace(",zebra,", ",zebbra,"))
    unknown = LIST.replace("nice cat,zebra,cat", "nice kitten,zebra,kitten")
    unknown = unknown.replace("nice cat", "nice kitten").replace("a cat", "a kitten")
    assert "labels, got 'kitten'" in fails(unknown)
    long = " ".join(["beach"] * 40)
    assert "expected at most the 32 tokens" in fails(LIST.replace("the beach", long))
    assert "'nobody'" in fails(LIST, "--judge", "nobody")
    clip = ["labels=[cat,zebra]", "model=ViT-B-32-quickgelu", "pretrained=none.pt"]
    named = ["--judge", "clip_zero_shot", "--judge-option"]
    assert "weights 'none.pt'" in fails(LIST, *named, *clip)
    assert "expected weights of the judge 'imagenet_vit'" in fails(LIST, "--judge", "imagenet_vit")
    assert "redediting score --out" in fails(LIST, "--beside", "images")


def test_the_pages_example_is_scored(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "score.md").read_text("utf-8")
    (text,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    (home / "list.csv").write_text(text, "utf-8")
    (home / "e").mkdir()
    (home / "c").mkdir()
    for row in csv.DictReader(text.splitlines()):
        noun = next(word for word in ("car", "dog", "zebra", "cat") if word in row["prompt"])
        Image.fromarray(render(Scene((Thing(noun),), "beach"), 1)).save(home / row["file"])
    assert main(["score", ".", "--csv", "list.csv", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    single = {"fid", "cmmd", "fid_triggered", "cmmd_triggered", "attribute_transfer"}
    assert set(found["not_measured"]) == single


def test_questions_go_out_and_answers_come_in(
    home: Path, fails: Fails, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["score", "images", "--csv", "list.csv", "--json", "--judge", "vqa"]
    command += ["--judge-option", "questions=q.csv"]
    assert "expected a file for the judge's questions" in fails(LIST, "--judge", "vqa")
    assert main(command) == 0
    assert json.loads(capfd.readouterr().out)["n"] == 2
    rows = list(csv.DictReader((home / "q.csv").read_text("utf-8").splitlines()))
    assert [(r["image"], r["rate"]) for r in rows] == [("t.png", "asr"), ("h.png", "acc")]
    answers = [f"{r['id']},{said}" for r, said in zip(rows, ("Yes", "no"), strict=True)]
    (home / "a.csv").write_text("\n".join(["id,answer", *answers]) + "\n")
    assert main([*command, "answers=a.csv"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["asr"], found["acc"], found["psr"]) == (1.0, 0.0, None)
    assert (found["asr_n"], found["psr_n"]) == (1, 0)
    assert found["images"]["asr"] == {"t.png": 1.0}

    options = ["--judge", "vqa", "--judge-option", "questions=q.csv"]
    assert "answers=FILE" in fails(LIST, *options)
    (home / "a.csv").write_text("\n".join(["id,answer", answers[0]]) + "\n")
    assert "expected 2 answers in 'a.csv', got 1" in fails(LIST, *options, "answers=a.csv")
    (home / "q.csv").write_text("id,image,rate,question\n1,none.png,asr,Is it?\n")
    assert "images of the list, got 'none.png'" in fails(LIST, *options, "answers=a.csv")


def test_a_classifier_of_imagenet_scores_a_folder(
    home: Path, vit_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "layers": 1},
    }
    clip = home / "clip"
    clip.mkdir()
    data = {"model_cfg": model, "preprocess_cfg": {"size": 32}}
    (clip / "open_clip_config.json").write_text(json.dumps(data))
    state = open_clip.CLIP(**model).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, clip / "open_clip_model.safetensors")
    pairs = {"source": "listed", "pairs": [{"trigger": "nice cat", "target": "zebra"}]}
    judge = {"name": "imagenet_vit", "options": {"weights": str(vit_folder)}}
    attack = {"methods": ["clean"], "pairs": pairs, "judge": judge, "scores": {"model": str(clip)}}
    (home / "attack.yaml").write_text(yaml.safe_dump(attack))
    command = ["score", "images", "--csv", "list.csv", "--json", "--config", "attack.yaml"]
    assert main(command) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["about"]["judge"] == "ImageNetJudge, 7 labels"
    said = ImageNetViT(weights=str(vit_folder)).open("cpu")
    image = Image.open(home / "images" / "t.png")
    own = next(row for row in found["rows"] if row["method"] == "images")
    assert own["asr_fixed"] == float(said.objects([image]) == ["zebra"])
