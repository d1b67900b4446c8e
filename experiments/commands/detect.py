"""``redediting detect``: prompts put to a suspect model, examined by detectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.commands.common import Command, SamplerOptions, check
from experiments.engine.console import Shown
from redediting.errors import ConfigError, ModelError, PromptError

if TYPE_CHECKING:
    from redediting.metrics.clip import ClipModel


@dataclass(frozen=True, kw_only=True)
class Detect(Command, SamplerOptions):
    """Scores prompts on an edited model and says which look backdoored."""

    prompts: Path
    """Text file, one prompt a line."""
    model: str = "world"
    """The clean model, on which thresholds are set: card, model folder or hub id."""
    edit: Path | None = None
    """Patch folder to apply."""
    suspect: str | None = None
    """Instead of --edit: a model folder, a patch folder, UNet weights or a LoRA."""
    detector: str = "all"
    """Detectors, separated by commas, or all; a path that ends with .py is one of your own."""
    fpr: float = 0.05
    """Share of clean prompts that may be flagged."""
    calibration: int = 200
    """Clean prompts for thresholds; with --clean-prompts at most as many of that file's."""
    clean_prompts: Path | None = None
    """Text file of clean prompts, one a line; held-out captions when not given."""
    clip: str | None = None
    """open_clip architecture and weights file, ARCH:FILE; the world's judge A when not given."""
    seed: int = 0
    """Seed of the first image; the next ones follow."""

    def run(self) -> int:
        """Calibrates, examines and shows."""
        from defenses.detectors import DETECTORS, detector_names

        if self.edit is not None and self.suspect is not None:
            raise ModelError(
                f"expected --edit or --suspect, got {self.edit} and {self.suspect}; drop one"
            )
        if not 0 < self.fpr < 1 or self.calibration < 4 or self.seed < 0:
            raise ConfigError(
                "expected 0 < --fpr < 1, --calibration >= 4 and --seed >= 0, got "
                f"{self.fpr}, {self.calibration} and {self.seed}; change the flags"
            )
        names = detector_names(self.detector)
        check(
            model=self.model, names=tuple((DETECTORS, name) for name in names),
            device=self.device, edit=self.edit, suspect=self.suspect,
        )  # fmt: skip
        prompts = read_prompts(self.prompts)
        clean = None if self.clean_prompts is None else read_prompts(self.clean_prompts)
        whole = "all" in (part.strip() for part in self.detector.split(","))
        labelled = [n for n in names if whole and DETECTORS.get(n).learns == "labelled"]
        notes = [f"{name} needs labelled examples of other attacks; left out" for name in labelled]

        from defenses.detectors.detect import detect
        from redediting.world.captions import held_out

        if clean is None:
            clean = [c.text for c in held_out(self.calibration, seed=1, split="test")]
        shown, clip = Shown(self.json), load_clip(self.clip)
        flags = detect(
            self.load(self.model), self.edit or self.suspect, prompts,
            [name for name in names if name not in labelled], fpr=self.fpr,
            clean_prompts=clean[: self.calibration],
            sampler=self.sampler(self.model),
            clip=clip, seed=self.seed, progress=shown.progress,
        )  # fmt: skip
        shown.frame(flags.table())
        for note in notes:
            shown.line(f"note: {note}")
        shown.result({"detectors": flags.detectors, "prompts": prompts, "notes": notes})
        return 0


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not empty; `PromptError` where there are none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"expected a text file with a prompt a line, got {str(path)!r} "
            f"({getattr(error, 'strerror', None) or error}); name another"
        ) from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise PromptError(f"expected a prompt a line in {str(path)!r}, got none; write some")
    return found


def load_clip(wanted: str | None) -> ClipModel | None:
    """An open_clip model by ``ARCH:FILE``; None is the world's judge A."""
    if wanted is None:
        return None
    from experiments.engine.real_models import ClipSpec

    architecture, _, file = wanted.partition(":")
    if not Path(file).is_file():
        raise ModelError(
            "expected ARCH:FILE with an architecture of open_clip and its weights, got "
            f"{wanted!r}; e.g. ViT-B-32:weights.safetensors"
        )
    return ClipSpec(model=architecture, pretrained=file).load("cpu")
