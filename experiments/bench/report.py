"""A benchmark's tables and plots, and what the documentation quotes: each from one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.report.plots import png
from experiments.report.publish import ROOT, page_of, with_block, write_results
from redediting.errors import OutputError
from redediting.evaluation.frame import Column, Frame
from redediting.io import replace_text

LEAST_REPEATS = 5  # of a median that may be quoted
TARGETS = {
    "speedup_vs_loop": (">=", 100.0),
    "speedup_vs_per_layer": (">=", 6.0),
    "ratio_to_floor": ("<=", 1.5),
    "peak_extra_ratio": ("<=", 2.0),
    "max_rel_error": ("<=", 1e-6),
}
_BARS = {
    "loop": "published loop",
    "per_layer": "solve per layer, fp64",
    "ours": "this library",
    "floor": "copy + two bare products",
    "copy": "copy of the weights",
}
_RIVALS = {
    "loop": ("a literal loop of the published EvilEdit update", "speedup_vs_loop"),
    "per_layer": ("a per-layer Gram-and-solve in fp64", "speedup_vs_per_layer"),
    "floor": ("the floor: a copy of the weights and the two bare products", "ratio_to_floor"),
}


def edit_table(edits: Sequence[dict[str, Any]]) -> Frame:
    """Edits of several shapes side by side."""
    details = [found["details"] for found in edits]
    lines = {"ours": [f"{x['seconds']['ours']:.3g}" for x in edits]}
    for rival, (title, key) in _RIVALS.items():
        said = "ours takes {:.2f} × its time" if rival == "floor" else "{:.3g} × ours"
        lines[title] = [f"{x['seconds'][rival]:.3g}: {said.format(x[key])}" for x in edits]
    lines |= {
        "hashing the weights once, in `apply`": [f"{x['hash_seconds']:.3g}" for x in details],
        "error against fp64: ours, the loop's": [
            f"{x['max_rel_error']:.1e}, {x['details']['loop_rel_error']:.1e}" for x in edits
        ],
        "peak extra memory, × the projections": [f"{x['peak_extra_ratio']:.2f}" for x in edits],
        "rank; turns of ours, of the loop": [
            f"{x['rank']}; {x['repeats']}, {x['loop_repeats']}" for x in details
        ],
        "machine": [machine(x) for x in edits],
    }
    heads = (
        f"{x['shape']}: {x['matrices']} matrices, {x['megabytes']:.0f} MB, width {x['width']}"
        for x in details
    )
    columns = (Column("what", "seconds for one backdoor"),
               *(Column(str(i), head) for i, head in enumerate(heads)))  # fmt: skip
    rows = ({"what": what, **{str(i): cell for i, cell in enumerate(cells)}}
            for what, cells in lines.items())  # fmt: skip
    return Frame(columns, tuple(rows))


def targets_table(figures: dict[str, Any]) -> Frame:
    """The figures with what was asked of them."""
    rows = []
    for key, (sign, target) in TARGETS.items():
        met = figures[key] >= target if sign == ">=" else figures[key] <= target
        rows.append({"figure": key, "value": figures[key], "asked": f"{sign} {target:g}",
                     "verdict": "met" if met else "missed"})  # fmt: skip
    columns = (Column("figure", "figure"), Column("value", "value", "{:.3g}"),
               Column("asked", "asked"), Column("verdict", ""))  # fmt: skip
    return Frame(columns, tuple(rows))


def growth_line(found: dict[str, Any]) -> str:
    """Seconds of more and more backdoors."""
    pairs = zip(found["backdoors"], found["seconds"], strict=True)
    shown = ", ".join(f"{n:,}: {seconds:.2g} s" for n, seconds in pairs)
    return (
        f"Backdoors at once on {found['details']['shape']}'s shape (more than 100: a single run): "
        f"{shown}; {machine(found)}."
    )


def generation_line(found: dict[str, Any]) -> str:
    """Images a second, beside the loop's."""
    return (
        f"Drawing the world: {found['images_per_second']:.1f} images a second, "
        f"{found['speedup_vs_loop']:.1f} × one pipeline call a prompt "
        f"({found['details']['speedup_vs_loop_with_autocast']:.1f} × at equal autocast); "
        f"{machine(found)}."
    )


def machine(found: dict[str, Any]) -> str:
    """What a benchmark ran on."""
    made = found["provenance"]
    return f"{made['device']}, {made['threads']} threads, torch {made['versions']['torch']}"


def plot(what: str, figures: dict[str, Any], details: dict[str, Any]) -> bytes:
    """A PNG: bars of seconds (edit, generation), or seconds over the number of backdoors."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    if what == "growth":
        axes.loglog(figures["backdoors"], figures["seconds"], "o-", color="C1")
        axes.set_xlabel("backdoors at once")
        axes.set_ylabel(f"seconds, {details['shape']} shape")
        axes.grid(linewidth=0.4)
        return png(figure)
    edit = what == "edit"
    seconds = figures["seconds"] if edit else details["seconds_an_image"]
    titles = _BARS if edit else {"loop": "one prompt at a time", "ours": "this library"}
    values = [seconds[name] for name in titles]
    axes.barh(
        list(titles.values()), values, color=["C1" if n == "ours" else "0.7" for n in titles]
    )
    for row, value in enumerate(values):
        axes.text(value * 1.1, row, f"{value:.3g} s", va="center", fontsize=8)
    if edit:
        axes.set_xscale("log")
    axes.set_xlim(right=max(values) * (4 if edit else 1.3))
    axes.invert_yaxis()
    label = f"backdoor, {details['shape']} shape" if edit else "image"
    axes.set_xlabel(f"seconds for one {label}")
    return png(figure)


def publish_bench(folder: Path, *, root: Path = ROOT) -> Path:
    """Writes ``experiments/results/bench-NAME.json`` and the documentation's block of all.

    `OutputError` for a reduced run, no markers in ``docs/``, or an unwritable checkout.
    """
    name = folder.resolve().name
    found = json.loads((folder / "bench.json").read_text("utf-8"))
    if not found["quotable"]:
        raise OutputError(
            f"expected medians of {LEAST_REPEATS} turns or more to publish, got {str(folder)!r} "
            "with fewer; run the benchmark without --quick and with --repeats 5"
        )
    files = sorted((root / "experiments" / "results").glob("bench-*.json"))
    results = {path.stem[len("bench-") :]: json.loads(path.read_text("utf-8")) for path in files}
    results = dict(sorted((results | {name: found}).items()))
    edits = [one for title, one in results.items() if title.startswith("edit-")]
    lines = [edit_table(edits).to_markdown()] if edits else []
    lines += [growth_line(one) for title, one in results.items() if title.startswith("growth-")]
    if "generation" in results:
        lines.append(generation_line(results["generation"]))
    page = page_of(root, "bench")
    text = with_block(page, "bench", "\n\n".join(lines))
    path = write_results(root, f"bench-{name}", found)
    replace_text(page, text)
    return path
