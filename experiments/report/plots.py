"""The pages' plots: headline metrics, what success costs, how many backdoors fit."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.tables import columns
from redediting.evaluation.frame import PERCENT
from redediting.evaluation.summary import Summary
from redediting.evaluation.tradeoff import COSTS, front

_SHOWN = ("asr_free", "acc", "collateral", "drift")


def overview(methods: Sequence[Summary]) -> bytes:
    """A PNG of pooled summaries: one panel a metric, a dot and its 95 % interval a method."""
    shown = columns(_SHOWN)
    figure = Figure(figsize=(11, 0.6 + 0.32 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    names = [method["method"] for method in methods]
    for panel, column in zip(panels, shown, strict=True):
        for row, method in enumerate(methods):
            value, bounds = method[column.key], method[f"{column.key}_ci"]
            if value is None:
                continue
            if bounds is not None:
                panel.plot(bounds, [row, row], color="0.6", linewidth=2, zorder=1)
            panel.plot(value, row, "o", color="C0", markersize=6, zorder=2)
        panel.set_title(column.head, fontsize=10)
        if column.form == PERCENT:
            panel.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        if column.key in ("asr_free", "acc"):
            panel.set_xlim(-0.03, 1.03)
        panel.set_yticks(range(len(names)), names)
        panel.grid(axis="x", linewidth=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    return png(figure)


def pareto(lines: Sequence[Summary], families: Mapping[str, Sequence[str]], control: str) -> bytes:
    """A PNG: ASR against drift and against collateral, a front a method.

    Every setting is a dot, its shape says which options were swept; the line joins those that no
    other setting of the method beats, the control among them. Where one method alone is swept,
    values stand beside them.
    """
    known = {line["method"]: line for line in lines}
    axes = dict.fromkeys(_axis(t, name) for name, own in families.items() for t in own)
    marks = dict(zip(axes, cycle("os^Dvp"), strict=False))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, len(COSTS), squeeze=False)[0]
    for panel, cost in zip(panels, COSTS, strict=True):
        for i, (name, titles) in enumerate(families.items()):
            points = [
                (known[title]["asr_free"], known[title][cost])
                for title in (control, *titles)
                if title in known and known[title][cost] is not None
            ]
            colour = f"C{i % 10}"
            gains, costs = zip(*front(points), strict=True)
            panel.plot(costs, gains, color=colour, linewidth=1.2)
            for title in titles:
                if title not in known or known[title][cost] is None:
                    continue
                place = known[title][cost], known[title]["asr_free"]
                panel.plot(*place, marks[_axis(title, name)], color=colour, markersize=4)
                if len(families) == 1 and title != name:
                    value = title.rpartition("=")[2]
                    panel.annotate(value, place, (4, 3), textcoords="offset points", fontsize=6)
            panel.plot([], [], "o-", color=colour, label=name)
        for axis, mark in marks.items() if len(marks) > 2 else ():
            if axis:
                panel.plot([], [], mark, color="0.5", label=axis)
        panel.set_xlabel(cost)
        panel.set_ylabel("ASR free")
        panel.set_ylim(-0.03, 1.03)
        panel.grid(linewidth=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, loc="lower right")
    return png(figure)


def _axis(title: str, name: str) -> str:
    """Names of the options that a setting's title gives values to; empty for the method itself."""
    return ", ".join(re.findall(r"(\w+)=", title.removeprefix(name)))


def growth(lines: Sequence[Summary]) -> bytes:
    """A PNG: ASR, ACC, drift and seconds by number of backdoors, of capacity's lines."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    keys = ("asr_free", "acc", "drift", "seconds")
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    titles = list(dict.fromkeys(line["title"] for line in lines))
    for panel, key in zip(panels, keys, strict=True):
        for i, title in enumerate(titles):
            for order, style in (("joint", "-"), ("sequential", "--")):
                own = [
                    line
                    for line in lines
                    if line["title"] == title and (line["order"] == order or line["n"] == 1)
                ]
                panel.plot(
                    [line["n"] for line in own], [line[key] for line in own], f"o{style}",
                    color=f"C{i}", markersize=4, label=f"{title}, {order}",
                )  # fmt: skip
        panel.set_xscale("log")
        panel.set_title(columns((key,))[0].title, fontsize=10)
        panel.set_xlabel("backdoors")
        if key in ("asr_free", "acc"):
            panel.set_ylim(-0.03, 1.03)
        panel.grid(linewidth=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
