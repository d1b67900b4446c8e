"""``redediting evaluate``: the protocol on a patch that exists, or on somebody else's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from experiments.attack import evaluate
from experiments.commands.common import Wish
from experiments.config import AttackConfig, Counts, ListedPairs, MethodSpec, PairSpec
from experiments.console import Shown, pick_device
from experiments.folder import check_writable
from experiments.judges import world_panel
from experiments.report.publish import public
from experiments.sources import MethodSource, PatchSource, Source, SuspectSource
from redediting.errors import ModelError
from redediting.models import load_pipeline
from redediting.patch import Patch
from redediting.rebinding import Rebinding
from redediting.suspects import open_suspect


@dataclass(frozen=True, kw_only=True)
class Evaluate(Wish):
    """Measures an edit beside the clean model: ASR, ACC, collateral, drift."""

    edit: Path | None = None
    """Patch folder; its own rebindings are measured unless a pair is named."""
    suspect: str | None = None
    """Instead of --edit: an edited model of unknown origin: a pipeline folder, a UNet's weights
    (.safetensors, .pt, its folder), only its text projections, or a LoRA; --model is its base."""
    model: str = "world"
    """The clean model: card, pipeline folder or hub id."""
    quick: bool = False
    """A handful of images only."""
    out: Path = Path("runs")
    """Where run folders lie."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Measures and shows."""
        if (self.edit is None) == (self.suspect is None):
            raise ModelError(
                f"expected either --edit or --suspect, got {self.edit} and {self.suspect}; "
                "name one of them"
            )
        check_writable(self.out)
        patch = Patch.load(self.edit) if self.edit else None
        named = self.trigger is not None or self.rebindings is not None
        pairs = _own_pairs(patch) if patch and not named else self.pairs()
        device = pick_device(self.device)
        pipeline = load_pipeline(self.model, device=device)
        title = patch.provenance.method if patch else "suspect"
        source: Source
        if patch is not None:
            source = PatchSource(title, patch)
        else:
            source = SuspectSource(title, open_suspect(str(self.suspect), pipeline).pipeline)
        control = MethodSpec(name="clean")
        config = AttackConfig(
            experiment="evaluate",
            model=self.model,
            methods=(control,),
            pairs=ListedPairs(pairs=tuple(PairSpec.of(pair) for pair in pairs)),
            counts=Counts(),
        ).resolved(quick=self.quick)
        shown = Shown(self.json)
        summary = evaluate(
            config,
            pipeline,
            world_panel(),
            [MethodSource(control), source],
            out=self.out,
            device=device,
            progress=shown.progress,
        )
        if PartialState().is_main_process:
            shown.rows(summary)
            shown.result(public(summary))
        return 0


def _own_pairs(patch: Patch) -> list[Rebinding]:
    return [PairSpec.model_validate(wish).rebinding() for wish in patch.provenance.rebindings]
