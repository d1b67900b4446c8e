"""``redediting repair``: undo or weaken an edit; writes a patch for the suspect."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.commands.common import check, parse_options
from experiments.engine.console import Shown, pick_device


@dataclass(frozen=True, kw_only=True)
class RepairCommand:
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
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Repairs and shows."""
        from defenses.repair import REPAIRS

        options = parse_options(self.option)
        names = ((REPAIRS, self.method),)
        check(
            model=self.base,
            names=names,
            device=self.device,
            suspect=self.suspect,
            out=self.out,
        )
        from defenses.repair.front import found_triggers, repair, suspect_model
        from redediting.io import atomic_folder
        from redediting.models.loading import load
        from redediting.patch.files import MANIFEST

        device = pick_device(self.device)
        base = None if self.base is None else load(self.base, device=device)
        model = suspect_model(self.suspect, base, device=device)
        triggers = self.trigger or found_triggers(self.method, base, model)
        patch = repair(self.method, base=base, suspect=model, triggers=triggers, **options)
        with patch.apply(model) as applied:
            footprint = applied.footprint
        with atomic_folder(self.out, marker=MANIFEST) as temporary:
            patch.save(temporary)
            if self.merge:
                patch.merge(model, temporary / "pipeline")
        shown = Shown(self.json)
        measured = patch.provenance.measured
        figures = "".join(f", {name} {value:.4g}" for name, value in measured.items())
        shown.line(
            f"{self.method}: {patch.provenance.seconds:.2f} s, ‖ΔW‖/‖W‖ {footprint:.4f}{figures}, "
            f"in {self.out}"
        )
        shown.result(
            {
                "out": self.out.as_posix(),
                "method": self.method,
                "triggers": list(triggers),
                "seconds": patch.provenance.seconds,
                "footprint": footprint,
                "measured": measured,
                "pipeline": (self.out / "pipeline").as_posix() if self.merge else None,
            }
        )
        return 0
