"""``redediting evaluate``: the protocol on a patch that exists, or on somebody else's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from experiments.attack.measure import evaluate
from experiments.commands.common import Wish
from experiments.console import Shown, pick_device
from experiments.engine.folder import check_writable
from experiments.engine.real_models import make_panel
from experiments.engine.specs import AttackConfig, ListedPairs, MethodSpec, PairSpec, load_config
from experiments.report.publish import public
from experiments.sources import MethodSource, PatchSource, Source, SuspectSource
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError
from redediting.patch.patch import Patch
from redediting.suspects import open_suspect


@dataclass(frozen=True, kw_only=True)
class Evaluate(Wish):
    """Measures an edit beside the clean model: ASR, ACC, collateral, drift."""

    edit: Path | None = None
    """Patch folder; its own rebindings are measured unless a pair is named."""
    suspect: str | None = None
    """Instead of --edit: an edited model of unknown origin: a model folder, a UNet's weights
    (.safetensors, .pt, its folder), only its text projections, or a LoRA; --model is its base."""
    model: str | None = None
    """The clean model: card, model folder or hub id; the config's, or world, when not given."""
    config: Path | None = None
    """Attack configuration whose judges, captions, counts, sampler and precision are taken; what
    real models need, e.g. configs/attack/sd15.yaml. Its methods and pairs play no part."""
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
        control = MethodSpec(name="clean")
        listed = ListedPairs(pairs=tuple(PairSpec.of(pair) for pair in pairs))
        config = self._measured(control, listed)
        model = config.runtime.load(config.model, device)
        title = patch.provenance.method if patch else "suspect"
        source: Source
        if patch is not None:
            source = PatchSource(title, patch)
        else:
            source = SuspectSource(title, open_suspect(str(self.suspect), model).model)
        shown = Shown(self.json)
        summary = evaluate(
            config,
            model,
            make_panel(config.judges, device),
            [MethodSource(control), source],
            out=self.out,
            device=device,
            progress=shown.progress,
        )
        if PartialState().is_main_process:
            shown.rows(summary)
            shown.result(public(summary))
        return 0

    def _measured(self, control: MethodSpec, pairs: ListedPairs) -> AttackConfig:
        """The configuration of the run: the file's, or the defaults, with the pairs at hand."""
        own: dict[str, object] = {
            "experiment": "evaluate",
            "methods": (control,),
            "pairs": pairs,
        }
        if self.config is None:
            config = AttackConfig(methods=(control,), pairs=pairs).model_copy(update=own)
        else:
            config = load_config(self.config, AttackConfig).model_copy(update=own)
        if self.model is not None:
            config = config.model_copy(update={"model": self.model})
        return config.resolved(quick=self.quick)


def _own_pairs(patch: Patch) -> list[Rebinding]:
    return [
        PairSpec.model_validate(rebinding).rebinding() for rebinding in patch.provenance.rebindings
    ]
