"""One self-contained HTML page of an audit: verdict, spectrum, how far phrases move, triggers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from matplotlib.figure import Figure

from defenses.audit import Audit, Factor, Recovery
from experiments.engine.folder import replace_text
from experiments.report.templates import render

_MEANING = {
    "clean": "UNet and text encoder are the base's, up to rounding.",
    "edited": (
        "One multiplier explains how all layers changed: a closed-form edit. That need not be "
        "malicious; what it does is listed below."
    ),
    "changed": "The weights changed, but not by a shared multiplier: training, a merge or noise.",
}


def write_audit_page(path: Path, found: Audit, *, base: str, suspect: str) -> Path:
    """Writes the page and returns its path.

    Args:
        path: of the HTML file.
        found: the audit.
        base: name of the trusted model.
        suspect: name of the suspect.

    Raises:
        OutputError: the place cannot be written.
    """
    factor, recovery = found.evidence.comparison.factor, found.recovery
    text = render(
        "audit.html.j2",
        audit=found,
        meaning=_MEANING[found.verdict],
        base=base,
        suspect=suspect,
        spectrum=spectrum_plot(factor) if factor else None,
        movement=movement_plot(recovery) if recovery else None,
    )
    replace_text(path, text)
    return path


def spectrum_plot(factor: Factor) -> str:
    """Singular values of the shared factor beside the noise edge: PNG, base64."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    values = factor.spectrum.clamp_min(1e-12 * float(factor.spectrum.max())).numpy()
    axes.semilogy(range(1, len(values) + 1), values, ".", markersize=4)
    axes.axhline(max(factor.edge, float(values.min())), color="0.5", linewidth=1, linestyle="--")
    axes.set_xlabel("direction")
    axes.set_ylabel("size, in units of the noise")
    axes.set_title(f"Shared factor: {factor.rank} directions above the noise edge (dashed)")
    return _png(figure)


def movement_plot(recovery: Recovery) -> str:
    """``‖M̂c‖/‖c‖`` of every phrase against how surely it lands on a foreign concept."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [moved for _, moved, _ in recovery.profile],
        [score for _, _, score in recovery.profile],
        ".",
        color="0.6",
        markersize=2,
        rasterized=True,
    )
    for trigger in recovery.triggers[:3]:
        axes.plot(trigger.moved, trigger.score, "o", color="C3", markersize=5)
        axes.annotate(
            trigger.phrase,
            (trigger.moved, trigger.score),
            xytext=(5, -3),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlabel("‖M̂c‖ / ‖c‖")
    axes.set_ylabel("lands on a foreign concept")
    axes.grid(linewidth=0.4)
    return _png(figure)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
