"""Pictures of detectors: ROC curves, maps of every token, how the end token's maps move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from defenses.detectors.benchmark import SHOWN, Found, Unit
from experiments.report.plots import png
from experiments.report.section import Plot, Section, markup
from redediting.evaluation.detection import detector_label
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.store import ResultStore, Row
from redediting.metrics.roc import roc

Array = NDArray[np.float64]
Curve = tuple[Sequence[float], Sequence[float]]
_ACROSS = 4
_GALLERY = """<div class="scroll"><table class="grid">
{% for title, cells in rows %}<tr><td>{{ title }}</td>
{% for plot, said in cells %}<td><img alt="{{ plot.alt }}" src="{{ plot.source }}">
{{ plot.alt }}: <b>{{ said }}</b></td>{% endfor %}</tr>{% endfor %}</table></div>"""


def roc_curves(panels: Mapping[str, Mapping[str, Curve]]) -> bytes:
    """Returns a PNG: one panel a detector, one curve an attack.

    Args:
        panels: false and true positive rates by attack, by the detector's title.
    """
    down = -(-len(panels) // _ACROSS)
    figure = Figure(figsize=(3.2 * _ACROSS, 3.2 * down), layout="constrained")
    every = figure.subplots(down, _ACROSS, squeeze=False).flatten()
    for axes, (title, curves) in zip(every, panels.items(), strict=False):
        for attack, curve in curves.items():
            axes.plot(*curve, label=attack, linewidth=1.4)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("false positive rate", fontsize=8)
        axes.tick_params(labelsize=7)
    every[0].legend(fontsize=7)
    for axes in every[len(panels) :]:
        axes.set_visible(False)
    return png(figure)


def token_maps(strips: Sequence[tuple[str, Array, Sequence[str]]]) -> bytes:
    """Returns a PNG: mean maps of every token, each in its own range (what FTT sees), in rows.

    Args:
        strips: of each row title, maps ``(positions, rows, columns)`` and tokens.
    """
    width = max(len(tokens) for _, _, tokens in strips)
    figure = Figure(figsize=(0.62 * width + 1.6, 0.95 * len(strips)), layout="constrained")
    panels = figure.subplots(len(strips), 1, squeeze=False)[:, 0]
    for axes, (title, maps, tokens) in zip(panels, strips, strict=True):
        _, rows, columns = maps.shape
        strip = np.full((rows, width * (columns + 1)), np.nan)
        for i, one in enumerate(maps[: len(tokens)]):
            start = i * (columns + 1)
            strip[:, start : start + columns] = one / one.max()
        axes.imshow(strip, cmap="magma", vmin=0, vmax=1, aspect="equal")
        centres = [i * (columns + 1) + columns / 2 for i in range(len(tokens))]
        axes.set_xticks(centres, tokens, fontsize=6)
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.set_ylabel(title, fontsize=6, rotation=0, ha="right")
        axes.spines[:].set_visible(False)
    return png(figure)


def end_rates(clean: Array, attacks: Mapping[str, tuple[Array, Array]]) -> bytes:
    """Returns a PNG: ``ER_e^t - mean_i ER_i^t`` over steps (what DAA sees), a panel an attack.

    Lines are means over prompts; the band is the middle half of the triggered ones.

    Args:
        clean: of benign prompts on the clean model, shape ``(n, T - 1)``.
        attacks: of benign and of triggered prompts on each edited model.
    """
    figure = Figure(figsize=(2.9 * len(attacks), 2.6), layout="constrained")
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for axes, (name, (benign, triggered)) in zip(panels, attacks.items(), strict=True):
        for label, values, colour in (
            ("clean model", clean, "0.5"), ("benign", benign, "C0"), ("triggered", triggered, "C3")
        ):  # fmt: skip
            axes.plot(values.mean(axis=0), label=label, color=colour, linewidth=1.3)
        low, high = np.percentile(triggered, [25, 75], axis=0)
        axes.fill_between(range(len(low)), low, high, color="C3", alpha=0.15)
        axes.axvspan(3, 4, color="0.9", zorder=0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step t", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].legend(fontsize=7)
    return png(figure)


class RunPictures:
    """Plots and images of a finished run.

    Args:
        folder: of the run.
        units: of the benchmark.

    Raises:
        OutputError: the folder is no finished run.
    """

    def __init__(self, folder: Path, units: Sequence[Unit]) -> None:
        store = ResultStore(folder)
        store.json("summary.json")
        self._images = store.images
        self._found = [Found.read(store, unit) for unit in units if unit.rebinding]
        with np.load(folder / "scores.npz") as scores:
            self._scores = dict(scores)

    def roc(self, pooled: tuple[Row, ...]) -> Plot:
        """ROC curves, all kinds of trigger together."""
        panels: dict[str, dict[str, Any]] = {}
        for row in pooled:
            names = "{detector}/{protocol}/{attack}/".format(**row)
            one, other = (self._scores[names + cell] for cell in ("triggered", "benign"))
            panel = panels.setdefault(f"{detector_label(row)} ({row['direction']})", {})
            panel[row["attack"]] = roc(one, other, row["direction"])
        return Plot("ROC curves by detector", roc_curves(panels))

    def sections(self) -> tuple[Section, ...]:
        """What the attention does: maps and images of each attack's first pair, and rates."""
        note = (
            "Mean map of every token over all steps, each in its own range: FTT measures how "
            "unlike they are, CDA how they vary together. First pair, first prompt of each "
            "attack, not picked."
        )
        found = [Section("Why: what the attention does", note=note)]
        for unit in self._found:
            if unit.unit.position or unit.unit.attack == CONTROL:
                continue
            title = f"{unit.unit.attack}: {unit.unit.rebinding}"
            both = [
                f
                for f in self._found
                if f.unit.rebinding == unit.unit.rebinding and f.unit.attack == CONTROL
            ]
            both = [both[0], unit]  # fmt: skip
            strips = [
                (f"{f.unit.attack}\n{cell}", f.arrays[f"maps/{cell}"], f.record["tokens"][cell])
                for f in both for cell in ("benign", "triggered")
            ]  # fmt: skip
            plot = Plot(f"Attention maps: {title}", token_maps(strips))
            found.append(Section(title, plot=plot, level=3))
            images = markup(_GALLERY, rows=[(f.unit.attack, self._gallery(f)) for f in both])
            found.append(Section("images (benign, then triggered)", markup=images, folded=True))
        attacks = [name for name in dict.fromkeys(f.unit.attack for f in self._found)
                   if name != CONTROL]  # fmt: skip
        rates = end_rates(
            self._rates(CONTROL, "benign"),
            {a: (self._rates(a, "benign"), self._rates(a, "triggered")) for a in attacks},
        )
        note = (
            "ER of the end token minus the mean of the others (DAA-I adds steps 3 and 4, shaded "
            "grey; low says “backdoored”). Mean over prompts; the band is the middle half of the "
            "triggered ones."
        )
        plot = Plot("Relative evolution of attention", rates)
        title = "How fast the end token’s map moves, against the other tokens’"
        return (*found, Section(title, plot=plot, note=note, level=3))

    def _rates(self, attack: str, cell: str) -> np.ndarray:
        own = [f.arrays[f"rates/{cell}"] for f in self._found if f.unit.attack == attack]
        return np.concatenate(own)

    def _gallery(self, found: Found) -> list[tuple[Plot, str]]:
        return [
            (Plot(row["prompt"], (self._images / found.unit.image(c, row["index"])).read_bytes()),
             row["label"])
            for c in ("benign", "triggered") for row in found.rows
            if row["cell"] == c and row["index"] < SHOWN
        ]  # fmt: skip
