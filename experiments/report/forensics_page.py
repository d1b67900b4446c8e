"""The page of a forensics run: separation, recovery, persistence, hiding, repairs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.engine.folder import replace_text
from experiments.report.tables import show
from experiments.report.templates import render

_TABLES: tuple[tuple[str, str, str], ...] = (
    ("families", "Suspects by method and kind of control", "r²: corrected, lowest and highest."),
    (
        "recovery",
        "Triggers and targets named",
        "Compared as normalised phrases; noun, target: of the first phrase named. same_noun and "
        "same_modifier say what an edit is diffuse over.",
    ),
    (
        "persistence",
        "After ordinary training, and after projection on the clean span",
        "asr: triggered captions showing the target; acc: the head noun alone; means over pairs.",
    ),
    (
        "adaptive",
        "An attacker who hides the shared factor",
        "jitter, noise: relative to the edit; quiet: noise where no text points; spread: groups "
        "of layers, each on its own contexts.",
    ),
    (
        "repairs",
        "Repairs of an edit with a legitimate fine-tune on top",
        "kept: share of the fine-tune's change that is left; beside: what else is left, relative "
        "to it; both once more as clean captions read it; condition: of I + XD.",
    ),
)


def write_forensics_page(
    folder: Path, summary: dict[str, Any], provenance: dict[str, Any], config: str
) -> Path:
    """Writes ``report.html`` of a run folder and returns its path.

    Args:
        folder: of the run.
        summary: as in ``summary.json``.
        provenance: as in ``provenance.json``.
        config: resolved, YAML.

    Raises:
        OutputError: the folder cannot be written.
    """
    text = render(
        "forensics.html.j2",
        cell=cell,
        summary=summary,
        tables=[(summary[key], title, note) for key, title, note in _TABLES],
        plot=plots(summary),
        provenance=provenance,
        config=config,
    )
    path = folder / "report.html"
    replace_text(path, text)
    return path


def cell(value: object) -> str:
    """A value as the tables print it; rates with their interval."""
    if isinstance(value, dict):
        if value["value"] is None:
            return "–"
        low, high = value["ci"]
        return f"{value['value']:.1%} ({low:.1%} … {high:.1%}, n = {value['n']})"
    if isinstance(value, list):
        return " … ".join(f"{end:.3f}" for end in value)
    if isinstance(value, float):
        return show(value, "{:.4g}")
    return "–" if value is None else str(value)


def plots(summary: dict[str, Any]) -> str:
    """Persistence, isolation against removability, and the attacker's price: PNG, base64.

    What was not measured is left out; empty where nothing was.
    """
    panels = [(_persistence, "persistence"), (_removability, "persistence"), (_price, "adaptive")]
    panels = [(draw, key) for draw, key in panels if summary[key]]
    if not panels:
        return ""
    figure = Figure(figsize=(4 * len(panels), 4.6), layout="constrained")
    for axes, (draw, key) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        draw(axes, summary[key])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _persistence(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    start = {line["method"]: line["asr"] for line in lines if line["trial"] == "edited"}
    for i, method in enumerate(start):
        trials = dict.fromkeys(
            line["trial"] for line in lines if line["method"] == method and line["step"] > 0
        )
        for mark, trial in zip("osv^", trials, strict=False):
            own = [x for x in lines if x["method"] == method and x["trial"] == trial]
            steps = [0, *(x["step"] for x in own)]
            values = [start[method], *(x["asr"] for x in own)]
            axes.plot(steps, values, f"-{mark}", color=f"C{i}", label=f"{method}, {trial}")
    _finish(axes, "Success after training", "steps", "ASR")


def _removability(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    methods = dict.fromkeys(line["method"] for line in lines)
    for i, method in enumerate(methods):
        own = {x["trial"]: x for x in lines if x["method"] == method and x["step"] == 0}
        if "edited" not in own:
            continue
        for mark, trial in (("o", "projection, hard"), ("s", "projection, soft")):
            if trial in own:
                removed = own["edited"]["asr"] - own[trial]["asr"]
                axes.plot(
                    own["edited"]["drift"], removed, mark, color=f"C{i}",
                    label=f"{method}, {trial.split()[1]}",
                )  # fmt: skip
    _finish(axes, "Isolation against removability", "benign drift of the edit", "ASR removed")


def _price(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    for i, kind in enumerate(dict.fromkeys(line["kind"] for line in lines)):
        own = [x for x in lines if x["kind"] == kind and x["auroc"] is not None]
        for key, mark, name in (("auroc", "o:", "r²"), ("auroc_whitened", "s-", "whitened")):
            axes.plot(
                [x[key] for x in own], [x["asr"] for x in own], mark, color=f"C{i}",
                markersize=4, label=f"{kind}, {name}",
            )  # fmt: skip
    axes.axvline(0.9, color="0.6", linewidth=1, linestyle="--")
    _finish(axes, "Hiding the factor", "AUROC of the audit", "ASR")


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(linewidth=0.4)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
