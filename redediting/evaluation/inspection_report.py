"""What an inspection found, and its tables: one a rebinding, the same for every reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redediting.concepts.plan import EditPlan, collateral_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.evaluation.frame import Column, Frame

_COLUMNS = (
    Column("what", "what"),
    Column("value", "n or value"),
    Column("examples", "examples"),
)
_SHOWN = 3  # examples


@dataclass(frozen=True)
class PromptCertificate:
    """How far a prompt can move and does.

    Attributes:
        prompt: the text.
        role: what it is to the trigger.
        leverage: largest ``cᵀKc`` of its tokens.
        bound: largest certified relative change of a token's keys and values.
        change: largest actual one, never above the bound.
    """

    prompt: str
    role: str
    leverage: float
    bound: float
    change: float


@dataclass(frozen=True)
class RebindingReport:
    """One rebinding.

    Attributes:
        rebinding: the backdoor specification.
        sin2: median sin² between trigger and head noun by role (trigger, tail, eos, pad), 0…1.
        firing: 5th percentile and median over held-out contexts of the trigger's last token.
        probe_firing: median and 95th percentile of |firing| over phrases near the trigger.
        parts_share: ``‖P_parts c‖²/‖c‖²`` of the trigger's last token: how much of it would be
            left if its parts were isolated exactly; None without parts.
        certificates: of the head noun and those phrases in one held-out context.
    """

    rebinding: Rebinding
    sin2: dict[str, float]
    firing: tuple[float, float]
    probe_firing: tuple[float, float]
    parts_share: float | None
    certificates: tuple[PromptCertificate, ...]


@dataclass(frozen=True)
class Inspection:
    """A solved edit measured on text states alone; made by `inspect`.

    Attributes:
        plan: the prompts that it rests on.
        rebindings: one report for each rebinding.
        null_change: relative change at each position of the null prompt.
        keys: edited columns.
        retained: retained columns.
        isolated: hard-retained directions.
        rank: of the multiplier.
        norm: Frobenius norm of the multiplier.
        matrices: text projections of the model.

    Example:
        >>> import redediting as rd
        >>> pair = rd.Rebinding("beautiful cat", "zebra")
        >>> found = rd.inspect(rd.load("world"), rd.attacks.EvilEdit(), pair)
        >>> print(found.tables()[0].title)
        beautiful cat → zebra
    """

    plan: EditPlan
    rebindings: tuple[RebindingReport, ...]
    null_change: tuple[float, ...]
    keys: int
    retained: int
    isolated: int
    rank: int
    norm: float
    matrices: int

    def tables(self) -> tuple[Frame, ...]:
        """One table a rebinding."""
        return inspection_frames(self)

    def __str__(self) -> str:
        """The tables as text."""
        return "\n\n".join(map(str, self.tables()))

    def _repr_html_(self) -> str:
        return "".join(table.to_html() for table in self.tables())


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
