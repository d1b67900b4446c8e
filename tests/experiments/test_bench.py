"""The benchmark: rivals do the same update, figures have the promised keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.bench.edits import RIDGE, bench_edit, bench_growth, edit, worst_error
from experiments.bench.measure import peak_extra
from experiments.bench.report import TARGETS, edit_table, plot, publish_bench, targets_table
from experiments.bench.rivals import per_layer_solve, published_loop
from experiments.bench.shapes import (
    ShapeName,
    projection_tensors,
    random_states,
    unet_without_memory,
)
from experiments.commands.cli import main
from redediting.errors import OutputError
from redediting.evaluation.store import provenance
from redediting.models.cards import Expected, load_cards
from redediting.models.layouts import LAYOUTS

EDIT_KEYS = {
    "speedup_vs_loop", "speedup_vs_per_layer", "ratio_to_floor", "ratio_to_copy", "max_rel_error",
    "peak_extra_ratio", "seconds",
}  # fmt: skip


def small_weights(device: str = "cpu") -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        f"layer{i}": torch.randn(m, 96, generator=random).mul_(0.05).to(device)
        for i, m in enumerate((40, 80))
    }


@pytest.mark.parametrize(
    ("shape", "layout", "numbers"),
    [("sd15", "sd", 19_169_280), ("sdxl", "sdxl", 340_787_200)],
)
def test_full_size_unets_have_the_projections_that_the_cards_expect(
    shape: ShapeName, layout: str, numbers: int
) -> None:
    unet, reader = unet_without_memory(shape), LAYOUTS.make(layout)
    found = reader.token_projections(unet)
    assert load_cards()[shape].expected == Expected(
        tokens=len(found),
        width=found[0].module.in_features,
        pooled=len(reader.pooled_projections(unet)),
    )
    assert sum(projection.module.weight.numel() for projection in found) == numbers


def test_all_do_the_same_update() -> None:
    states = random_states(2, 96)
    keys, targets = states.columns
    assert torch.equal(keys[:, 77 * 2 :], targets[:, 77 * 2 :])
    assert len(states.pairs) == 4
    clean = [weight.clone() for weight in small_weights().values()]

    def error(weights: dict[str, torch.Tensor]) -> float:
        return worst_error(weights, clean, keys, targets)

    untouched = small_weights()
    assert error(untouched) > 0.1
    ours = small_weights()
    with edit(ours, states):
        assert error(ours) < 1e-6
    assert all(torch.equal(one, two) for one, two in zip(ours.values(), clean, strict=True))
    solved = small_weights()
    per_layer_solve(solved, keys, targets, ridge=RIDGE)
    assert error(solved) < 1e-6
    looped = small_weights()
    published_loop(looped, states.pairs, ridge=RIDGE)
    assert error(looped) < 1e-2


def check_edit(device: str) -> None:
    weights = small_weights(device)
    before = {name: weight.clone() for name, weight in weights.items()}
    figures, details = bench_edit("small", weights, repeats=2, loop_repeats=1)
    assert set(figures) == EDIT_KEYS
    assert set(figures["seconds"]) == {"ours", "loop", "per_layer", "floor", "copy"}
    assert all(value > 0 for value in figures["seconds"].values())
    seconds = figures["seconds"]
    assert figures["speedup_vs_loop"] == pytest.approx(seconds["loop"] / seconds["ours"])
    assert figures["ratio_to_floor"] == pytest.approx(seconds["ours"] / seconds["floor"])
    assert figures["max_rel_error"] < 1e-6
    assert 0 < details["rank"] <= 76
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    targets = targets_table(figures)
    assert [row["figure"] for row in targets.rows] == list(TARGETS)
    assert {row["verdict"] for row in targets.rows} <= {"met", "missed"}
    found = figures | {"details": details, "provenance": provenance(device, "", "")}
    assert "small: 2 matrices" in str(edit_table([found]))
    assert plot("edit", figures, details).startswith(b"\x89PNG")


def test_edit_figures() -> None:
    check_edit("cpu")


def test_peak_sees_what_is_held_and_freed() -> None:
    megabytes = 64

    def hold() -> None:
        torch.ones(megabytes * 2**18)  # freed before the call returns

    assert 0.9 < peak_extra(hold, "cpu") / (megabytes * 2**20) < 1.5

    def hold_many() -> None:
        _ = [torch.ones(2**18) for _ in range(megabytes)]  # small enough to stay in the heap

    hold_many()
    assert 0.9 < peak_extra(hold_many, "cpu") / (megabytes * 2**20) < 1.5


def test_growth_and_generation_from_the_command_line(
    tmp_path: Path,
    model_folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "growth", "--quick", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["backdoors"] == [1, 10]
    assert set(found) == {"backdoors", "seconds", "schema_version"}
    assert 0 < found["seconds"][0] < found["seconds"][1]
    model = ["--model", str(model_folder), "--images", "4"]
    assert main(["bench", "generation", *model, "--quick", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert set(found) == {"speedup_vs_loop", "images_per_second", "schema_version"}
    for name in ("growth-sd15", "generation"):
        folder = tmp_path / "runs" / "bench" / name
        assert (folder / "bench.png").is_file()
        record = json.loads((folder / "bench.json").read_text())
        assert record["quotable"] is False
        assert record["provenance"]["threads"] == torch.get_num_threads()
    assert main(["bench", "edit", "--repeats", "0"]) == 2
    assert "got 0" in capfd.readouterr().err


def save_bench(folder: Path, figures: object, details: object, *, quotable: bool = True) -> Path:
    folder.mkdir()
    found = {"details": details, "provenance": provenance("cpu", "", ""), "quotable": quotable}
    (folder / "bench.json").write_text(json.dumps({**figures, **found}))  # type: ignore[dict-item]
    return folder


def test_benches_are_published_side_by_side(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results-bench.md"
    page.parent.mkdir()
    page.write_text("<!-- bench:begin -->\nold\n<!-- bench:end -->\n")
    figures, details = bench_edit("small", small_weights(), repeats=1, loop_repeats=1)
    path = publish_bench(save_bench(tmp_path / "edit-small", figures, details), root=tmp_path)
    assert json.loads(path.read_text())["seconds"] == figures["seconds"]
    grown = bench_growth("small", small_weights(), backdoors=(1, 2))
    publish_bench(save_bench(tmp_path / "growth-small", *grown), root=tmp_path)
    text = page.read_text()
    assert "old" not in text
    assert "| small: 2 matrices" in text  # of the first, still there
    assert "2: " in text.split("Backdoors at once on small's shape")[1]
    reduced = save_bench(tmp_path / "growth-quick", *grown, quotable=False)
    with pytest.raises(OutputError, match="medians of 5 turns"):
        publish_bench(reduced, root=tmp_path)
    page.write_text("no markers")
    with pytest.raises(OutputError, match="bench:begin"):
        publish_bench(save_bench(tmp_path / "growth-other", *grown), root=tmp_path)
    assert len(list((tmp_path / "experiments" / "results").iterdir())) == 2


@pytest.mark.gpu
def test_edit_and_growth_on_a_gpu() -> None:
    check_edit("cuda")
    weights = projection_tensors("sd15", device="cuda")
    figures, details = bench_edit("sd15", weights, repeats=5, loop_repeats=1)
    assert figures["max_rel_error"] < 1e-6
    assert figures["peak_extra_ratio"] < 2
    assert figures["speedup_vs_per_layer"] > 1
    assert details["matrices"] == 32
    grown, _ = bench_growth("sd15", weights, backdoors=(1, 10, 100))
    assert grown["seconds"] == sorted(grown["seconds"])


@pytest.mark.gpu
def test_generation_on_a_gpu(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "generation", "--device", "cuda", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["speedup_vs_loop"] >= 2
