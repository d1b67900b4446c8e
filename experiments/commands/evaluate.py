"""``redediting evaluate``: the protocol on a patch that exists, or on somebody else's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.commands.common import Command, RebindingOptions, check
from experiments.engine.console import JudgeOptions, Shown, pick_device
from redediting.errors import ModelError

if TYPE_CHECKING:
    from experiments.engine.specs import AttackConfig
    from redediting.concepts.rebinding import Rebinding


@dataclass(frozen=True, kw_only=True)
class Evaluate(JudgeOptions, Command, RebindingOptions):
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

    def run(self) -> int:
        """Measures and shows."""
        if (self.edit is None) == (self.suspect is None):
            raise ModelError(
                f"expected either --edit or --suspect, got {self.edit} and {self.suspect}; "
                "name one of them"
            )
        check(
            model=self.model, device=self.device, edit=self.edit, suspect=self.suspect,
            config=self.config, out=self.out,
        )  # fmt: skip
        own = self.edit is not None and self.trigger is None and self.rebindings is None
        pairs = [] if own else self.pairs()
        from experiments.attack.measure import measure
        from experiments.attack.page import run_page
        from experiments.engine.pairs import PairSpec
        from experiments.engine.real_models import check_embedded
        from experiments.engine.specs import MethodSpec
        from experiments.report.publish import public
        from redediting.evaluation.entries import AttackEntry, Entry, PatchEntry, SuspectEntry
        from redediting.evaluation.panel import open_panel
        from redediting.patch.patch import Patch
        from redediting.suspects import open_suspect

        patch = Patch.load(self.edit) if self.edit else None
        if patch is not None and own:
            listed = patch.provenance.rebindings
            pairs = [PairSpec.model_validate(one).rebinding() for one in listed]
        device = pick_device(self.device)
        config = self._measured(pairs)
        model = config.runtime.load(config.model, device)
        entry: Entry
        if patch is not None:
            entry = PatchEntry(patch.provenance.method, patch)
        else:
            entry = SuspectEntry("suspect", open_suspect(str(self.suspect), model))
        shown = Shown(self.json)
        entries = [AttackEntry(MethodSpec(name="clean").build()), entry]
        check_embedded(model, config.judge, config.inception)
        panel = open_panel(config.judge.build(), config.scores, device)
        summary = measure(config, model, panel, entries, out=self.out, progress=shown.progress)
        return shown.run(summary, run_page, public)

    def _measured(self, pairs: list[Rebinding]) -> AttackConfig:
        """The configuration of the run: the file's, or the defaults, with the pairs at hand."""
        from experiments.engine.pairs import ListedPairs, PairSpec
        from experiments.engine.specs import AttackConfig, MethodSpec
        from redediting.config import load_config

        own: dict[str, Any] = {"methods": (MethodSpec(name="clean"),), "experiment": "evaluate"}
        own["pairs"] = ListedPairs(pairs=tuple(PairSpec.of(pair) for pair in pairs))
        own |= {"model": self.model} if self.model else {}
        given = load_config(self.config, AttackConfig) if self.config else AttackConfig(**own)
        return self.judged(given.model_copy(update=own)).resolved(quick=self.quick)
