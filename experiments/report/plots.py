"""The page's one plot: the headline metrics of every method with their intervals."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.tables import COLUMNS, PERCENT
from experiments.summary import Summary

_SHOWN = ("asr_free", "acc", "collateral", "drift")


def overview(methods: Sequence[Summary]) -> str:
    """Returns a PNG, base64: one panel a metric, a dot and its 95 % interval a method.

    Args:
        methods: pooled summaries.
    """
    columns = [column for column in COLUMNS if column.key in _SHOWN]
    figure = Figure(figsize=(11, 0.6 + 0.32 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    names = [method["method"] for method in methods]
    for panel, column in zip(panels, columns, strict=True):
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
