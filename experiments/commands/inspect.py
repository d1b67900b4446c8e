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
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from experiments.commands.common import Wish, planned_pairs
from experiments.console import Shown, pick_device
from experiments.engine.folder import replace_text
from redediting.attacks.redediting import REDEditing
from redediting.concepts.plan import EditPlan, collateral_prompts
from redediting.concepts.plan_files import load_plan, plan_to_yaml
from redediting.concepts.rebinding import Rebinding
from redediting.evaluation.inspection import RebindingReport, inspect
from redediting.models.loading import load

_PER_LINE = 11  # numbers


@dataclass(frozen=True, kw_only=True)
class Inspect(Wish):
    """Shows the prompts an edit rests on and the angles between trigger and head noun."""

    model: str = "world"
    """Card, model folder or hub id."""
    retrieval: Literal["templates", "equivalent"] = "templates"
    """templates: drawn contexts; equivalent: relationships scored on the text encoder."""
    plan: Path | None = None
    """Show this plan instead of making one."""
    write: Path | None = None
    """File for the plan as YAML: edit it, then `edit --plan FILE`."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Plans and shows."""
        given = None if self.plan is None else load_plan(self.plan)
        pairs = self.pairs() if given is None else planned_pairs(self, given)
        model = load(self.model, device=pick_device(self.device))
        attack = REDEditing(retrieval=self.retrieval)
        report = inspect(model, attack, pairs, plan=given)
        plan = report.plan
        found = [
            _prompts(plan, pair) | _foreseen(one)
            for pair, one in zip(pairs, report.rebindings, strict=True)
        ]
        if self.write is not None:
            replace_text(self.write, plan_to_yaml(plan))
        console = Console(stderr=self.json)
        for entry in found:
            console.print(_table(entry))
        shown = Shown(self.json)
        for note in plan.notes:
            shown.line(f"note: {note}")
        for line in _null_lines(report.null_change):
            shown.line(line)
        shown.line(
            f"{len(plan.pairs)} prompt pairs moved, {len(plan.retain)} prompts kept, "
            f"{len(plan.captions)} captions for Σ₀; {report.matrices} matrices read text; "
            f"the null prompt moves by at most {max(report.null_change):.1%}"
        )
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


def _table(entry: dict[str, Any]) -> Table:
    table = Table(title=f"{entry['trigger']} → {entry['target']}", title_justify="left")
    table.add_column("what")
    table.add_column("n or score", justify="right")
    table.add_column("examples", overflow="fold")
    for found in entry["retrieved"]:
        values = f"{found['source'] or '–'} → {found['target'] or '–'} ({found['origin']})"
        table.add_row(f"{found['relation']}", f"{found['score']:.2f}", values)
    moved = [f"{p['source']} → {p['target']}" for p in entry["moved"]]
    table.add_row("moved", str(len(moved)), "\n".join(moved[:3]))
    for role, count in Counter(kept["role"] for kept in entry["kept"]).items():
        examples = [kept["prompt"] for kept in entry["kept"] if kept["role"] == role]
        table.add_row(f"kept: {role}", str(count), "\n".join(examples[:3]))
    phrases = [probe["phrase"] for probe in entry["probed"]]
    table.add_row("probed later", str(len(phrases)), ", ".join(phrases))
    for role, value in entry["sin2"].items():
        table.add_row(f"sin² to the head noun: {role}", f"{value:.4f}", "")
    if entry["parts_share"] is not None:
        said = "of the trigger's energy is left when its parts are kept exactly"
        table.add_row("outside its parts", f"{entry['parts_share']:.1%}", said)
    for name, what in (("firing", "held-out contexts"), ("probe_firing", "phrases near it")):
        for statistic, value in entry[name].items():
            table.add_row(f"firing, {statistic}", f"{value:.2f}", what)
    for item in entry["certificates"]:
        said = f"{item['prompt']}: moves by {item['change']:.1%}, at most {item['bound']:.1%}"
        table.add_row(f"certificate: {item['role']}", f"{item['leverage']:.3f}", said)
    return table
