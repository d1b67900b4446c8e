"""The page of one audit: verdict, evidence, spectrum, how far phrases move, triggers."""

from __future__ import annotations

from matplotlib.figure import Figure

from defenses.audit.recovery import Recovery
from defenses.audit.report import AuditReport
from defenses.audit.shared_factor import Factor
from experiments.report.plots import png
from experiments.report.section import Plot, Report, Section, facts
from redediting.evaluation.frame import Column, Frame

_MEANING = {
    "clean": "Everything that was compared is the base's, up to rounding.",
    "edited": (
        "One multiplier explains how all layers changed: a closed-form edit. That need not be "
        "malicious; what it does is listed below."
    ),
    "changed": "The weights changed, but not by a shared multiplier: training, a merge or noise.",
    "inconclusive": "Nothing that was compared had changed, but not everything could be compared.",
}
_FITS = (
    Column("group", "layers"), Column("matrices", "matrices", "{:d}"),
    Column("r2", "r²", "{:.5f}"), Column("chance", "by chance", "{:.4f}"),
    Column("corrected", "corrected", "{:.5f}"),
)  # fmt: skip
_COVERAGE = tuple(Column(key, key) for key in ("component", "status", "tensors", "reason"))


def suspect_page(found: AuditReport, *, base: str, suspect: str) -> Report:
    """The page of an audit, from the names of the trusted model and of the suspect."""
    evidence, recovery = found.evidence, found.recovery
    comparison = evidence.comparison
    measured = facts(
        [
            ("text projections changed beyond rounding", len(comparison.changed)),
            ("other tensors changed", len(found.others)),
            ("‖ΔW‖/‖W‖", f"{comparison.footprint:.5f}"),
            ("share of the change that is not rounding", f"{comparison.signal:.4f}"),
            ("explained by one shared factor, chance taken out", f"{evidence.r2:.5f}"),
            ("the same after whitening", f"{evidence.r2_whitened:.5f}"),
            ("by two in proportion", f"{evidence.r2_two_matrix:.5f}"),
        ]
    )
    fits = tuple(vars(fit) | {"matrices": len(fit.names)} for fit in comparison.fits)
    parts = [
        Section("Evidence", measured),
        Section("Coverage", Frame(_COVERAGE, tuple(vars(part) for part in found.coverage))),
    ]
    if fits:
        spectrum = spectrum_plot(comparison.factor) if comparison.factor else None
        parts.append(Section("By group of layers", Frame(_FITS, fits), spectrum))
    if recovery:
        note = " ".join(found.notes)
        parts.append(Section("What the edit does", found.table(), movement_plot(recovery), note))
    return Report(
        f"{suspect}: {found.verdict}",
        tuple(parts),
        lead=f"{_MEANING[found.verdict]} Compared with {base} in {found.seconds:.1f} s, from "
        "weights alone: no image was drawn, no metadata read.",
    )


def spectrum_plot(factor: Factor) -> Plot:
    """Singular values of the shared factor beside the noise edge."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    values = factor.spectrum.clamp_min(1e-12 * float(factor.spectrum.max())).numpy()
    axes.semilogy(range(1, len(values) + 1), values, ".", markersize=4)
    axes.axhline(max(factor.edge, float(values.min())), color="0.5", linewidth=1, linestyle="--")
    axes.set(xlabel="direction", ylabel="size, in units of the noise")
    axes.set_title(f"Shared factor: {factor.rank} directions above the noise edge (dashed)")
    return Plot("Singular values of the shared factor", png(figure))


def movement_plot(recovery: Recovery) -> Plot:
    """``‖M̂c‖/‖c‖`` of every phrase against how near it comes to an unrelated concept."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    _, moved, scores = zip(*recovery.profile, strict=True)
    axes.plot(moved, scores, ".", color="0.6", markersize=2, rasterized=True)
    for trigger in recovery.triggers[:3]:
        place = trigger.moved, trigger.score
        axes.plot(*place, "o", color="C3", markersize=5)
        axes.annotate(trigger.phrase, place, (5, -3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="‖M̂c‖ / ‖c‖", ylabel="displacement towards an unrelated concept")
    axes.grid(linewidth=0.4)
    return Plot("How far phrases move, and towards what", png(figure))
