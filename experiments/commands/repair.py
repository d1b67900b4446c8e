"""``redediting repair``: undo or weaken an edit; writes a patch for the suspect."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.commands.common import Command, check, save_patch
from experiments.engine.console import Shown, parse_options, pick_device


@dataclass(frozen=True, kw_only=True)
class RepairCommand(Command):
    """Computes a patch that takes a backdoor out of a suspect; legitimate changes may stay."""

    suspect: str
    """Pipeline folder, folder or file of weights, LoRA, patch folder, card or hub id."""
    out: Path
    """Folder to write; an earlier patch there is replaced."""
    base: str | None = "world"
    """The trusted model that it was made from; None where there is none."""
    method: str = "reversal"
    """reversal, rebinding, projection, truncation, finetune or lora."""
    option: tuple[str, ...] = field(default=())
    """Hyper-parameters of the method, as key=value."""
    trigger: tuple[str, ...] = field(default=())
    """Suspected phrases; where none are named and the method needs some, the audit finds them."""
    merge: bool = False
    """Write the repaired model too, in OUT/pipeline, for plain diffusers."""

    def run(self) -> int:
        """Repairs and shows."""
        from defenses.repair import REPAIRS

        options = parse_options(self.option)
        check(
            model=self.base, names=((REPAIRS, self.method),), device=self.device,
            suspect=self.suspect, out=self.out,
        )  # fmt: skip
        from defenses.repair.front import found_triggers, repair, suspect_model

        base = None if self.base is None else self.load(self.base)
        model = suspect_model(self.suspect, base, device=pick_device(self.device))
        triggers = self.trigger or found_triggers(self.method, base, model)
        patch = repair(self.method, base=base, suspect=model, triggers=triggers, **options)
        saved = save_patch(patch, model, self.out, merge=self.merge)
        shown, measured = Shown(self.json), patch.provenance.measured
        figures = "".join(f", {name} {value:.4g}" for name, value in measured.items())
        shown.line(
            f"{self.method}: {patch.provenance.seconds:.2f} s, ‖ΔW‖/‖W‖ "
            f"{saved['footprint']:.4f}{figures}, in {self.out}"
        )
        made = {"method": self.method, "triggers": list(triggers), "measured": measured}
        shown.result(saved | made)
        return 0
