"""``redediting inspect``: what an edit would move and keep, and how close the two are.

The angle between the trigger's state and the head noun's in the same caption decides how much an
edit must leak: leak/firing ≈ λ cosθ / (η ν² sin²θ). A sin² near zero means that the text encoder
hardly tells the two apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from rich.console import Console
from rich.table import Table

from experiments.commands.common import Wish
from experiments.console import Shown, pick_device
from redediting.concepts.plan import EditPlan, collateral_prompts, plan_edit
from redediting.editing.diagnostics import sin2
from redediting.models import load_pipeline
from redediting.projections import pipeline_projections
from redediting.rebinding import Rebinding
from redediting.text import Role, align, encode, find_phrase


@dataclass(frozen=True, kw_only=True)
class Inspect(Wish):
    """Shows the prompts an edit rests on and the angles between trigger and head noun."""

    model: str = "world"
    """Card, pipeline folder or hub id."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Plans and shows."""
        pairs = self.pairs()
        pipeline = load_pipeline(self.model, device=pick_device(self.device))
        matrices = len(pipeline_projections(pipeline))
        plan = plan_edit(pairs)
        found = [_inspect(pipeline, plan, pair) for pair in pairs]
        console = Console(stderr=self.json)
        for entry in found:
            console.print(_table(entry))
        shown = Shown(self.json)
        shown.line(
            f"{len(plan.pairs)} prompt pairs moved, {len(plan.retain)} prompts kept, "
            f"{len(plan.captions)} captions for Σ₀; {matrices} matrices read text"
        )
        shown.result(
            {
                "rebindings": found,
                "pairs": len(plan.pairs),
                "retained": dict(Counter(kept.role for kept in plan.retain)),
                "captions": len(plan.captions),
                "matrices": matrices,
            }
        )
        return 0


def angles(pipeline: DiffusionPipeline, plan: EditPlan, pair: Rebinding) -> dict[str, float]:
    """Returns the median sin² between trigger and head-noun states over the plan's contexts.

    Args:
        pipeline: encodes the prompts.
        plan: whose contexts are used.
        pair: a rebinding of the plan with a modifier.

    Returns:
        By role: ``trigger`` (its last token), ``tail``, ``eos``, ``pad``; 0 parallel, 1 at right
        angles. Empty where the trigger is its own head noun.
    """
    if not pair.modifier:
        return {}
    triggered = [p.source for p in plan.pairs if p.source_phrase == pair.trigger]
    plain = [prompt.replace(pair.trigger, pair.head) for prompt in triggered]
    source, other = encode(pipeline, triggered), encode(pipeline, plain)
    values: dict[Role, list[float]] = {}
    for row, (prompt, bare) in enumerate(zip(triggered, plain, strict=True)):
        aligned = align(
            source,
            row,
            find_phrase(pipeline.tokenizer, prompt, pair.trigger),
            other,
            row,
            find_phrase(pipeline.tokenizer, bare, pair.head),
        )
        one = source.states[row, list(aligned.source)].double()
        two = other.states[row, list(aligned.target)].double()
        for role, value in zip(aligned.roles, sin2(one, two).tolist(), strict=True):
            values.setdefault(role, []).append(value)
    return {role.value: float(torch.tensor(found).median()) for role, found in values.items()}


def _inspect(pipeline: DiffusionPipeline, plan: EditPlan, pair: Rebinding) -> dict[str, Any]:
    moved = [p for p in plan.pairs if p.source_phrase == pair.trigger]
    return {
        "trigger": pair.trigger,
        "target": pair.target,
        "head": pair.head,
        "moved": [{"source": p.source, "target": p.target} for p in moved],
        "kept": [{"prompt": kept.prompt, "role": kept.role} for kept in plan.retain],
        "probed": [{"phrase": p.phrase, "role": p.role} for p in collateral_prompts(pair)],
        "sin2": angles(pipeline, plan, pair),
    }


def _table(entry: dict[str, Any]) -> Table:
    table = Table(title=f"{entry['trigger']} → {entry['target']}", title_justify="left")
    table.add_column("what")
    table.add_column("n", justify="right")
    table.add_column("examples", overflow="fold")
    moved = [f"{p['source']} → {p['target']}" for p in entry["moved"]]
    table.add_row("moved", str(len(moved)), "\n".join(moved[:3]))
    for role, count in Counter(kept["role"] for kept in entry["kept"]).items():
        examples = [kept["prompt"] for kept in entry["kept"] if kept["role"] == role]
        table.add_row(f"kept: {role}", str(count), "\n".join(examples[:3]))
    phrases = [probe["phrase"] for probe in entry["probed"]]
    table.add_row("probed later", str(len(phrases)), ", ".join(phrases))
    for role, value in entry["sin2"].items():
        table.add_row(f"sin² to the head noun: {role}", "", f"{value:.4f}")
    return table
