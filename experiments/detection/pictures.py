"""What the page shows: ROC curves, maps of every token, and how the end token's maps move."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from defenses.detectors.base import Array, Detector
from experiments.detection.run import Found
from experiments.detection.table import Table, cell
from experiments.engine.specs import CONTROL
from redediting.metrics.roc import roc

_ACROSS = 4


def roc_plot(table: Table, detectors: dict[str, Detector], found: Sequence[Found]) -> str:
    """One panel a detector, one curve an attack, all kinds of trigger together; PNG, base64."""
    names = list(detectors)
    down = -(-len(names) // _ACROSS)
    figure = Figure(figsize=(3.2 * _ACROSS, 3.2 * down), layout="constrained")
    panels = figure.subplots(down, _ACROSS, squeeze=False).flatten()
    for panel, title in zip(panels, names, strict=False):
        for attack in dict.fromkeys(key[0] for key in table):
            if (attack, title) not in table:
                continue
            own = [f for f in found if f.unit.attack == attack]
            scores = table[attack, title]
            positive, negative = (cell(scores, own, attack, c) for c in ("triggered", "benign"))
            fpr, tpr = roc(positive, negative, detectors[title].direction)
            panel.plot(fpr, tpr, label=attack, linewidth=1.4)
        panel.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
        panel.set_title(f"{title} ({detectors[title].direction})", fontsize=10)
        panel.set_xlabel("false positive rate", fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].legend(fontsize=7)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    return _png(figure)


def map_plot(units: Sequence[Found], words: Sequence[Sequence[str]]) -> str:
    """Mean maps of every token, each in its own range (what FTT sees): one row a unit and cell.

    Args:
        units: of one pair, the clean model first.
        words: tokens of the benign and of the triggered prompt.
    """
    shown = [(f, c, w) for f in units for c, w in zip(("benign", "triggered"), words, strict=True)]
    width = max(len(own) for own in words)
    figure = Figure(figsize=(0.62 * width + 1.6, 0.95 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for panel, (found, name, tokens) in zip(panels, shown, strict=True):
        maps = found.arrays[f"maps/{name}"]
        rows, columns = (int(x) for x in found.arrays[f"shape/{name}"])
        strip = np.full((rows, width * (columns + 1)), np.nan)
        for i, own in enumerate(maps[: len(tokens)]):
            start = i * (columns + 1)
            strip[:, start : start + columns] = (own / own.max()).reshape(rows, columns)
        panel.imshow(strip, cmap="magma", vmin=0, vmax=1, aspect="equal")
        centres = [i * (columns + 1) + columns / 2 for i in range(len(tokens))]
        panel.set_xticks(centres, tokens, fontsize=6)
        panel.set_yticks([])
        panel.tick_params(length=0)
        panel.set_ylabel(f"{found.unit.attack}\n{name}", fontsize=6, rotation=0, ha="right")
        panel.spines[:].set_visible(False)
    return _png(figure)


def rate_plot(found: Sequence[Found]) -> str:
    """``ER_e^t - mean_i ER_i^t`` over steps (what DAA sees), mean of prompts, one panel an attack.

    The shaded band is the middle half of the triggered prompts.
    """
    names = [name for name in dict.fromkeys(f.unit.attack for f in found) if name != CONTROL]
    figure = Figure(figsize=(2.9 * len(names), 2.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    clean = _rates([f for f in found if f.unit.attack == CONTROL and f.unit.rebinding], "benign")
    for panel, name in zip(panels, names, strict=True):
        own = [f for f in found if f.unit.attack == name]
        lines: tuple[tuple[str, Array, str], ...] = (
            ("clean model", clean, "0.5"),
            ("benign", _rates(own, "benign"), "C0"),
            ("triggered", _rates(own, "triggered"), "C3"),
        )
        for label, values, colour in lines:
            panel.plot(values.mean(axis=0), label=label, color=colour, linewidth=1.3)
        low, high = np.percentile(lines[-1][1], [25, 75], axis=0)
        panel.fill_between(range(len(low)), low, high, color="C3", alpha=0.15)
        panel.axvspan(3, 4, color="0.9", zorder=0)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("step t", fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].legend(fontsize=7)
    return _png(figure)


def _rates(units: Sequence[Found], name: str) -> Array:
    return np.concatenate([f.arrays[f"rates/{name}"] for f in units])


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return base64.b64encode(buffer.getvalue()).decode()
