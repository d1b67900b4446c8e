"""The audit and repair commands: exit codes, JSON, pages, one line for bad input."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from experiments.commands.cli import main

PAIR = ("--trigger", "beautiful cat", "--target", "zebra")
KEYS = {"verdict", "r2", "r2_two_matrix", "rank", "footprint", "triggers", "targets", "seconds"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def edited(home: Path, model_folder: Path) -> Path:
    edit = ["edit", "--model", str(model_folder), "--method", "eviledit", *PAIR, "--out", "patch"]
    assert main([*edit, "--merge"]) == 0
    return home / "patch"


def last_json(capfd: pytest.CaptureFixture[str]) -> dict[str, object]:
    (line,) = capfd.readouterr().out.splitlines()
    found: dict[str, object] = json.loads(line)
    if "coverage" in found:
        schema = resources.files("defenses.audit").joinpath("schema.json").read_text("utf-8")
        jsonschema.validate(found, json.loads(schema))
    return found


def test_audit_verdicts_and_exit_codes(
    home: Path, model_folder: Path, edited: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    audit = ["audit", "--base", str(model_folder), "--json", "--suspect"]
    capfd.readouterr()
    assert main([*audit, str(model_folder)]) == 0
    clean = last_json(capfd)
    assert set(clean) >= KEYS
    assert (clean["verdict"], clean["triggers"]) == ("clean", [])
    assert main([*audit, str(edited / "pipeline"), "--report", "page.html"]) == 3
    found = last_json(capfd)
    assert found["verdict"] == "edited"
    assert found["r2"] >= 0.999  # type: ignore[operator]
    assert len(found["triggers"]) == 5  # type: ignore[arg-type]
    page = (home / "page.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "://" not in page
    assert found["triggers"][0]["phrase"] in page  # type: ignore[index]
    folder = model_folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.manual_seed(0)
    noisy = {n: t + 0.01 * torch.randn_like(t) for n, t in load_file(folder).items()}
    save_file(noisy, "noisy.safetensors")
    assert main([*audit, "noisy.safetensors"]) == 4
    assert last_json(capfd)["verdict"] == "changed"
    lacking = load_file(folder)
    del lacking["conv_in.weight"]
    save_file(lacking, "lacking.safetensors")
    assert main([*audit, "lacking.safetensors", "--report", "page.html"]) == 5
    assert last_json(capfd)["verdict"] == "inconclusive"
    assert "not everything could be compared" in (home / "page.html").read_text("utf-8")


def test_repair_writes_a_patch_that_cleans(
    home: Path, model_folder: Path, edited: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    repair = ["repair", "--base", str(model_folder), "--json", "--merge", "--out", "clean"]
    assert main([*repair, "--suspect", str(edited / "pipeline")]) == 0
    found = last_json(capfd)
    assert found["measured"]["condition"] >= 1  # type: ignore[index]
    assert StableDiffusionPipeline.from_pretrained(home / "clean" / "pipeline").unet is not None
    base, left = (
        load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
        for folder in (model_folder, home / "clean" / "pipeline")
    )
    assert max(float((base[n] - left[n]).abs().max()) for n in base) < 1e-3
    other = ["repair", "--json", "--method", "rebinding", "--trigger", "beautiful cat"]
    assert main([*other, "--base", str(model_folder), "--suspect", str(edited), "--out", "b"]) == 0
    assert last_json(capfd)["triggers"] == ["beautiful cat"]


def test_bad_words(
    home: Path, model_folder: Path, edited: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    base = ("--base", str(model_folder))
    for arguments, said in (
        (("audit", *base, "--suspect", "nowhere"), "expected a card"),
        (("repair", *base, "--suspect", str(edited), "--out", "x", "--method", "hope"), "'hope'"),
        (("repair", *base, "--suspect", str(model_folder), "--out", "x"), "nothing to reverse"),
    ):
        assert main(list(arguments)) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert said in err
    assert not (home / "x").exists()
