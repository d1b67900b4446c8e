"""Benchmarks in the documentation, each measured in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.report.publish import ROOT, page_of, with_block, write_results
from redediting.errors import OutputError
from redediting.io import replace_text

LEAST_REPEATS = 5  # of a median that may be quoted
_RIVALS = {
    "loop": ("a literal loop of the published EvilEdit update", "speedup_vs_loop"),
    "per_layer": ("a per-layer Gram-and-solve in fp64", "speedup_vs_per_layer"),
    "floor": ("the floor: a copy of the weights and the two bare products", "ratio_to_floor"),
}


def publish_bench(folder: Path, *, root: Path = ROOT) -> Path:
    """Writes ``experiments/results/bench-NAME.json`` and the documentation's block of all.

    Args:
        folder: of a run, ``runs/bench/NAME``.
        root: of the checkout.

    Returns:
        The JSON's path.

    Raises:
        OutputError: a reduced run, no such markers in ``docs/``, or an unwritable checkout.
    """
    name = folder.resolve().name
    found = json.loads((folder / "bench.json").read_text("utf-8"))
    if not found["quotable"]:
        raise OutputError(
            f"expected medians of {LEAST_REPEATS} turns or more to publish, got {str(folder)!r} "
            "with fewer; run the benchmark without --quick and with --repeats 5"
        )
    results = {
        path.stem.removeprefix("bench-"): json.loads(path.read_text("utf-8"))
        for path in sorted((root / "experiments" / "results").glob("bench-*.json"))
    } | {name: found}
    page = page_of(root, "bench")
    text = with_block(page, "bench", bench_markdown(results))
    path = write_results(root, f"bench-{name}", found)
    replace_text(page, text)
    return path


def bench_markdown(results: dict[str, dict[str, Any]]) -> str:
    """Every benchmark that there is, as the documentation shows it."""
    edits = [found for name, found in sorted(results.items()) if name.startswith("edit-")]
    lines = [_edit_table(edits)] if edits else []
    for name, found in sorted(results.items()):
        if name.startswith("growth-"):
            lines.append(_growth(found))
    if "generation" in results:
        lines.append(_generation(results["generation"]))
    return "\n\n".join(lines)


def _edit_table(edits: list[dict[str, Any]]) -> str:
    details = [found["details"] for found in edits]
    rows = {
        "seconds for one backdoor": [
            f"{x['shape']}: {x['matrices']} matrices, {x['megabytes']:.0f} MB, width {x['width']}"
            for x in details
        ],
        "---": ["---"] * len(edits),
        "ours": [f"{x['seconds']['ours']:.3g}" for x in edits],
    }
    for rival, (title, key) in _RIVALS.items():
        said = "ours takes {:.2f} × its time" if rival == "floor" else "{:.3g} × ours"
        rows[title] = [f"{x['seconds'][rival]:.3g}: {said.format(x[key])}" for x in edits]
    rows |= {
        "hashing the weights once, in `apply`": [f"{x['hash_seconds']:.3g}" for x in details],
        "error against fp64: ours, the loop's": [
            f"{x['max_rel_error']:.1e}, {x['details']['loop_rel_error']:.1e}" for x in edits
        ],
        "peak extra memory, × the projections": [f"{x['peak_extra_ratio']:.2f}" for x in edits],
        "rank; turns of ours, of the loop": [
            f"{x['rank']}; {x['repeats']}, {x['loop_repeats']}" for x in details
        ],
        "machine": [_machine(x) for x in edits],
    }
    return "\n".join("| " + " | ".join([head, *cells]) + " |" for head, cells in rows.items())


def _machine(found: dict[str, Any]) -> str:
    made = found["provenance"]
    return f"{made['device']}, {made['threads']} threads, torch {made['versions']['torch']}"


def _growth(found: dict[str, Any]) -> str:
    pairs = zip(found["backdoors"], found["seconds"], strict=True)
    shown = ", ".join(f"{n:,}: {seconds:.2g} s" for n, seconds in pairs)
    return (
        f"Backdoors at once on {found['details']['shape']}'s shape (more than 100: a single run): "
        f"{shown}; {_machine(found)}."
    )


def _generation(found: dict[str, Any]) -> str:
    return (
        f"Drawing the world: {found['images_per_second']:.1f} images a second, "
        f"{found['speedup_vs_loop']:.1f} × one model call a prompt "
        f"({found['details']['speedup_vs_loop_with_autocast']:.1f} × at equal autocast); "
        f"{_machine(found)}."
    )
