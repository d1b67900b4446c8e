"""``redediting repair``: undo or weaken an edit; writes a patch for the suspect."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from defenses.audit import (
    States,
    Vocabulary,
    audit,
    base_weights,
    read_suspect,
)
from defenses.repair import REPAIRS
from defenses.repair import Repair as Method
from experiments.commands.common import parse_options
from experiments.console import Shown, pick_device
from experiments.engine.folder import check_writable
from redediting.errors import MethodError
from redediting.io import atomic_folder
from redediting.models.cards import load_cards
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.files import MANIFEST


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
        method = REPAIRS.make(self.method, **parse_options(self.option))
        check_writable(self.out)
        model, trusted = self._load()
        triggers = self.trigger or self._audited(method, model, trusted)
        patch = method.compute(model, base=trusted, triggers=triggers)
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

    def _load(self) -> tuple[DiffusionPipeline, dict[str, torch.Tensor] | None]:
        """The suspect as a model, and the base's projections where there is a base."""
        device = pick_device(self.device)
        whole = (Path(self.suspect).expanduser() / "model_index.json").is_file()
        if whole or self.suspect in load_cards():
            model = load(self.suspect, device=device)
            if self.base is None:
                return model, None
            clean = load(self.base)
            read_suspect(self.suspect, clean)  # of the same architecture, or an error says so
            return model, base_weights(clean)
        if self.base is None:
            raise MethodError(
                f"expected a whole model to repair without a base, got {self.suspect!r}; "
                "name a model folder or --base"
            )
        model = load(self.base, device=device)
        weights = read_suspect(self.suspect, model).projections
        trusted = {name: weight.clone() for name, weight in base_weights(model).items()}
        for name, weight in base_weights(model).items():
            weight.copy_(weights[name])
        return model, trusted

    def _audited(
        self,
        method: Method,
        model: Model,
        trusted: dict[str, torch.Tensor] | None,
    ) -> tuple[str, ...]:
        if not method.needs_triggers or trusted is None:
            return ()
        vocabulary = Vocabulary.of(model.tokenizer)
        return audit(trusted, base_weights(model), States(model), vocabulary).suspected
