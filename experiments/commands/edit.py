"""``redediting edit``: compute a patch and save it, with the edited model if asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.commands.common import (
    Command,
    RebindingOptions,
    check,
    save_patch,
)
from experiments.engine.console import Shown, parse_options


@dataclass(frozen=True, kw_only=True)
class Edit(Command, RebindingOptions):
    """Computes an edit that rebinds trigger to target; writes a patch folder."""

    out: Path
    """Folder to write; an earlier patch there is replaced."""
    model: str = "world"
    """Card, model folder or hub id."""
    method: Annotated[str, tyro.conf.arg(aliases=("--attack",))] = "redediting"
    """Attack by name, or the path of a .py file with one; "clean" is the control."""
    option: tuple[str, ...] = field(default=())
    """Hyper-parameters of the attack, as key=value."""
    plan: Path | None = None
    """Plan to solve instead of a new one, as `inspect --write` wrote it and you edited it."""
    merge: bool = False
    """Write the edited model too, in OUT/pipeline, for plain diffusers."""

    def run(self) -> int:
        """Computes and saves."""
        from redediting.attacks import ATTACKS

        check(names=((ATTACKS, self.method),), model=self.model, device=self.device, out=self.out)
        options = parse_options(self.option)
        plan = None
        if self.plan is not None:
            from redediting.concepts.plan import load_plan

            plan, options["plan_file"] = load_plan(self.plan), self.plan.as_posix()
        pairs = self.pairs(plan)
        method = ATTACKS.make(self.method, **options)
        model = self.load(self.model)
        patch = method.compute(model, pairs)
        saved = save_patch(patch, model, self.out, merge=self.merge, plan=self.plan)
        size = (self.out / "patch.safetensors").stat().st_size
        shown = Shown(self.json)
        shown.line(
            f"{self.method}: {len(pairs)} rebinding(s) in {patch.provenance.seconds:.2f} s, "
            f"‖ΔW‖/‖W‖ {saved['footprint']:.4f}, {size / 1e6:.2f} MB in {self.out}"
        )
        made = {"method": self.method, "rebindings": patch.provenance.rebindings, "bytes": size}
        shown.result(saved | made)
        return 0
