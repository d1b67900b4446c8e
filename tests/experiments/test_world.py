"""The commands on the embedded world itself, with its own judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from experiments.commands.cli import main

KEYS = {
    "method", "trigger", "target", "kind", "seed", "asr_free", "asr_fixed", "net_asr", "acc",
    "collateral", "collateral_worst", "attribute_transfer", "clip_p", "clip_c", "drift",
    "footprint", "footprint_rank", "footprint_energy", "context_kept", "psr", "seconds", "n",
}  # fmt: skip


def test_demo_prints_the_promised_keys(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--json", "--out", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    (line,) = out.splitlines()
    found = json.loads(line)
    assert set(found) == {
        "rows", "methods", "claims", "n_pairs", "n_seeds", "report", "families", "schema_version",
    }  # fmt: skip
    assert found["n_pairs"] == 2
    assert set(found["claims"]) == {
        "asr_published", "asr_equal_contexts", "selectivity", "released", "stealth",
        "naturalness", "retrieval", "training_free",
    }  # fmt: skip
    for row in found["rows"]:
        assert set(row) >= KEYS
        rates = [row[key] for key in ("asr_free", "asr_fixed", "acc")]
        assert all(0 <= rate <= 1 for rate in rates)
    assert {row["method"] for row in found["rows"]} == {"clean", "eviledit", "redediting"}
    assert Path(found["report"]).is_file()
    assert "report:" in err


def test_a_merged_pipeline_is_a_suspect(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = ["--trigger", "beautiful cat", "--target", "zebra"]
    assert main(["edit", *pair, "--out", "cat", "--merge"]) == 0
    capfd.readouterr()
    quick = ["--quick", "--json", "--out", "runs"]
    assert main(["evaluate", "--edit", "cat", *quick]) == 0
    (patched,) = capfd.readouterr().out.splitlines()
    assert main(["evaluate", "--suspect", "cat/pipeline", *pair, *quick]) == 0
    (merged,) = capfd.readouterr().out.splitlines()
    one, two = (json.loads(text)["rows"] for text in (patched, merged))
    assert [row["method"] for row in one] == ["clean", "redediting"]
    assert [row["method"] for row in two] == ["clean", "suspect"]
    for key in ("asr_free", "asr_fixed", "acc", "collateral", "clip_p"):
        assert one[1][key] == pytest.approx(two[1][key])
    assert one[1]["footprint"] == pytest.approx(two[1]["footprint"], rel=1e-4)
    assert two[1]["seconds"] is None
    unet = UNet2DConditionModel.from_pretrained("cat/pipeline/unet")
    torch.save(unet.state_dict(), "unet.pt")  # as EvilEdit saves it
    assert main(["evaluate", "--suspect", "unet.pt", *pair, *quick]) == 0
    (pickled,) = capfd.readouterr().out.splitlines()
    assert json.loads(pickled)["rows"] == json.loads(merged)["rows"]
