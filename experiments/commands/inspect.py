"""``redediting inspect``: what an edit would move and keep, how close the two are, what to expect.

The angle between the trigger's state and the head noun's in the same caption decides how much an
edit must leak: leak/firing ≈ λ cosθ / (η ν² sin²θ). A sin² near zero means that the text encoder
hardly tells the two apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.commands.common import Command, RebindingOptions, check
from experiments.engine.console import Shown

if TYPE_CHECKING:
    from redediting.concepts.plan import EditPlan
    from redediting.concepts.rebinding import Rebinding
    from redediting.evaluation.inspection import RebindingReport

_PER_LINE = 11  # numbers


@dataclass(frozen=True, kw_only=True)
class Inspect(Command, RebindingOptions):
    """Shows the prompts an edit rests on and the angles between trigger and head noun."""

    model: str = "world"
    """Card, model folder or hub id."""
    retrieval: Literal["templates", "equivalent"] = "templates"
    """templates: drawn contexts; equivalent: relationships scored on the text encoder."""
    plan: Path | None = None
    """Show this plan instead of making one."""
    write: Path | None = None
    """File for the plan as YAML: edit it, then `edit --plan FILE`."""

    def run(self) -> int:
        """Plans and shows."""
        check(model=self.model, device=self.device)
        given = None
        if self.plan is not None:
            from redediting.concepts.plan import load_plan

            given = load_plan(self.plan)
        pairs = self.pairs(given)
        from redediting.attacks.redediting import REDEditing
        from redediting.concepts.plan import plan_to_yaml
        from redediting.evaluation.inspection import inspect
        from redediting.io import replace_text

        model = self.load(self.model)
        attack = REDEditing(retrieval=self.retrieval)
        report = inspect(model, attack, pairs, plan=given)
        plan = report.plan
        found = [
            _prompts(plan, pair) | _foreseen(one)
            for pair, one in zip(pairs, report.rebindings, strict=True)
        ]
        if self.write is not None:
            replace_text(self.write, plan_to_yaml(plan))
        shown = Shown(self.json)
        for table in report.tables():
            shown.frame(table)
        for note in plan.notes:
            shown.line(f"note: {note}")
        for line in _null_lines(report.null_change):
            shown.line(line)
        shown.result(
            {
                "rebindings": found,
                "pairs": len(plan.pairs),
                "retained": dict(Counter(kept.role for kept in plan.retain)),
                "captions": len(plan.captions),
                "matrices": report.matrices,
                "null_change": max(report.null_change),
                "null_changes": list(report.null_change),
                "notes": list(plan.notes),
                "plan": None if self.write is None else self.write.as_posix(),
            }
        )
        return 0


def _prompts(plan: EditPlan, pair: Rebinding) -> dict[str, Any]:
    from redediting.concepts.plan import collateral_prompts

    moved = [p for p in plan.pairs if pair.trigger in p.source]
    return {
        "trigger": pair.trigger,
        "target": pair.target,
        "head": pair.head,
        "retrieved": [asdict(e) for e in plan.equivalences if e.trigger == pair.trigger],
        "moved": [{"source": p.source, "target": p.target} for p in moved],
        "kept": [{"prompt": kept.prompt, "role": kept.role} for kept in plan.retain],
        "probed": [{"phrase": p.phrase, "role": p.role} for p in collateral_prompts(pair)],
    }


def _foreseen(rebinding: RebindingReport) -> dict[str, Any]:
    """What the solved edit promises on text states, before any image."""
    return {
        "sin2": rebinding.sin2 if rebinding.rebinding.modifier else {},
        "firing": dict(zip(("p5", "median"), rebinding.firing, strict=True)),
        "probe_firing": dict(zip(("median", "p95"), rebinding.probe_firing, strict=True)),
        "parts_share": rebinding.parts_share,
        "certificates": [asdict(certificate) for certificate in rebinding.certificates],
    }


def _null_lines(changes: Sequence[float]) -> list[str]:
    """``‖ΔW z‖/‖W z‖`` of the null prompt's positions, eleven on a line."""
    said = [f"{change:8.1e}" for change in changes]
    lines = [
        f"  {start:>2}…{min(start + _PER_LINE, len(said)) - 1:<2} "
        + " ".join(said[start : start + _PER_LINE])
        for start in range(0, len(said), _PER_LINE)
    ]
    return ["relative change of the null prompt by position (0 is BOS, 1 the end):", *lines]
