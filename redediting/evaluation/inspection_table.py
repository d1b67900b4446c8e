"""An inspection as tables: one a rebinding, the same on the console, in notebooks and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from redediting.concepts.plan import EditPlan, collateral_prompts
from redediting.evaluation.frame import Column, Frame

if TYPE_CHECKING:
    from redediting.evaluation.inspection import Inspection, RebindingReport

_COLUMNS = (
    Column("what", "what"),
    Column("value", "n or value"),
    Column("examples", "examples"),
)
_SHOWN = 3  # examples


def inspection_frames(inspection: Inspection) -> tuple[Frame, ...]:
    """One table a rebinding: what is retrieved, moved and kept, angles, firing, certificates."""
    plan = inspection.plan
    note = (
        f"{len(plan.pairs)} prompt pairs moved, {len(plan.retain)} prompts kept, "
        f"{len(plan.captions)} captions for Σ₀; {inspection.matrices} matrices read text; the "
        f"null prompt moves by at most {max(inspection.null_change):.1%}"
    )
    return tuple(
        Frame(
            _COLUMNS,
            tuple(
                dict(zip(("what", "value", "examples"), row, strict=True))
                for row in (*_prompts(plan, report), *_figures(report))
            ),
            title=str(report.rebinding),
            note=note,
        )
        for report in inspection.rebindings
    )


def _prompts(plan: EditPlan, report: RebindingReport) -> Iterator[tuple[str, str, str]]:
    trigger = report.rebinding.trigger
    for found in plan.equivalences:
        if found.trigger == trigger:
            values = f"{found.source or '–'} → {found.target or '–'} ({found.origin})"
            yield found.relation, f"{found.score:.2f}", values
    moved = [f"{pair.source} → {pair.target}" for pair in plan.pairs if trigger in pair.source]
    yield "moved", str(len(moved)), _some(moved)
    for role, count in Counter(kept.role for kept in plan.retain).items():
        prompts = [kept.prompt for kept in plan.retain if kept.role == role]
        yield f"kept: {role}", str(count), _some(prompts)
    phrases = [probe.phrase for probe in collateral_prompts(report.rebinding)]
    yield "collateral phrases", str(len(phrases)), ", ".join(phrases)


def _figures(report: RebindingReport) -> Iterator[tuple[str, str, str]]:
    if report.rebinding.modifier:
        for role, value in report.sin2.items():
            yield f"sin² to the head noun: {role}", f"{value:.4f}", ""
    if report.parts_share is not None:
        said = "of the trigger's energy is left when its parts are kept exactly"
        yield "outside its parts", f"{report.parts_share:.1%}", said
    for name, value in zip(("p5", "median"), report.firing, strict=True):
        yield f"firing, {name}", f"{value:.2f}", "held-out contexts"
    for name, value in zip(("median", "p95"), report.probe_firing, strict=True):
        yield f"firing, {name}", f"{value:.2f}", "phrases near the trigger"
    for item in report.certificates:
        said = f"{item.prompt}: moves by {item.change:.1%}, at most {item.bound:.1%}"
        yield f"certificate: {item.role}", f"{item.leverage:.3f}", said


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN])
