"""A benchmark's plot and the table in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

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


def edit_lines(figures: dict[str, Any], details: dict[str, Any]) -> list[str]:
    """The figures with what was asked of them, a line each."""
    head = (
        f"{details['shape']}: {details['matrices']} matrices, text width {details['width']}, "
        f"{details['megabytes']:.0f} MB, rank {details['rank']}, median of {details['repeats']}"
    )
    lines = [head]
    lines += [f"{_BARS[name]:<26}{value:>10.4f} s" for name, value in figures["seconds"].items()]
    for key, (sign, target) in TARGETS.items():
        value = figures[key]
        met = value >= target if sign == ">=" else value <= target
        said = "met" if met else "missed"
        lines.append(f"{key:<26}{value:>10.3g}   asked {sign} {target:g}: {said}")
    lines.append(
        f"of ours: solve and compress {details['solve_seconds']:.4f} s; beside it, hashing the "
        f"weights once {details['hash_seconds']:.4f} s; the loop's own error "
        f"{details['loop_rel_error']:.1e}"
    )
    return lines


def plot_edit(figures: dict[str, Any], details: dict[str, Any], path: Path) -> None:
    """Bars of seconds, logarithmic."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    names = [name for name in _BARS if name in figures["seconds"]]
    values = [figures["seconds"][name] for name in names]
    axes.barh(
        [_BARS[n] for n in names], values, color=["C1" if n == "ours" else "0.7" for n in names]
    )
    for row, value in enumerate(values):
        axes.text(value * 1.1, row, f"{value:.3g} s", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 4)
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds for one backdoor, {details['shape']} shape")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def plot_growth(figures: dict[str, Any], details: dict[str, Any], path: Path) -> None:
    """Seconds over the number of backdoors, both logarithmic."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.loglog(figures["backdoors"], figures["seconds"], "o-", color="C1")
    axes.set_xlabel("backdoors at once")
    axes.set_ylabel(f"seconds, {details['shape']} shape")
    axes.grid(linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def plot_generation(figures: dict[str, Any], details: dict[str, Any], path: Path) -> None:
    """Bars of seconds an image."""
    figure = Figure(figsize=(6, 1.8), layout="constrained")
    axes = figure.subplots()
    seconds = details["seconds_an_image"]
    axes.barh(["one prompt at a time", "this library"], [seconds["loop"], seconds["ours"]],
              color=["0.7", "C1"])  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds an image ({figures['speedup_vs_loop']:.1f} times)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
