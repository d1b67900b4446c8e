"""``redediting detect``: prompts put to a suspect model, examined by every detector.

Thresholds come from clean prompts on the clean model; each is printed with the share of them that
it flags. Detectors that learn from clean prompts learn from the first half and take the threshold
from the second. Supervised ones need examples of other attacks and are left out of ``all``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from rich.console import Console
from rich.table import Table

from defenses.detectors import DETECTORS, detector_names
from defenses.detectors.base import Array, Detector
from defenses.detectors.inputs import Subject, known_nouns
from experiments.commands.common import chosen_sampler
from experiments.console import Shown, pick_device
from redediting.concepts.lexicon import load_lexicon
from redediting.errors import ConfigError, DetectorError, ModelError, PromptError
from redediting.generation import Job
from redediting.metrics.clip import ClipModel
from redediting.metrics.roc import threshold
from redediting.models.loading import load
from redediting.patch.patch import Patch
from redediting.suspects import open_suspect
from redediting.world.captions import held_out
from redediting.world.judges import load_judge_a


@dataclass(frozen=True, kw_only=True)
class Detect:
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
    steps: int | None = None
    """Denoising steps; the model card's when not given."""
    guidance: float | None = None
    """Guidance scale; the model card's when not given."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Calibrates, examines and shows."""
        if self.edit is not None and self.suspect is not None:
            raise ModelError(
                f"expected --edit or --suspect, got {self.edit} and {self.suspect}; drop one"
            )
        if not 0 < self.fpr < 1 or self.calibration < 4 or self.seed < 0:
            raise ConfigError(
                "expected 0 < --fpr < 1, --calibration >= 4 and --seed >= 0, got "
                f"{self.fpr}, {self.calibration} and {self.seed}; mend the flags"
            )
        detectors, notes = self._detectors()
        prompts = read_prompts(self.prompts)
        patch = Patch.load(self.edit) if self.edit else None
        device = pick_device(self.device)
        model = load(self.model, device=device)
        suspect = open_suspect(self.suspect, model).model if self.suspect else model
        clean = self._subject(model, self._clean())
        calibrated = {name: detector(clean).features for name, detector in detectors.items()}
        with patch.apply(model) if patch else nullcontext():
            subject = self._subject(suspect, prompts)
            found = {
                name: self._judge(detector, calibrated[name], subject)
                for name, detector in detectors.items()
            }
        shown = Shown(self.json)
        Console(stderr=self.json).print(_table(prompts, found))
        for name, entry in found.items():
            sign = ">" if entry["direction"] == "high" else "<"
            shown.line(
                f"{name}: flagged where score {sign} {entry['threshold']:.4g}, which flags "
                f"{entry['fpr']:.1%} of {entry['calibration']} clean prompts; "
                f"{entry['unet_evaluations']:.0f} UNet evaluations a prompt"
            )
        for note in notes:
            shown.line(f"note: {note}")
        shown.result({"detectors": found, "prompts": prompts, "notes": notes})
        return 0

    def _detectors(self) -> tuple[dict[str, Detector], list[str]]:
        made = [DETECTORS.make(name) for name in detector_names(self.detector)]
        labelled = [x.name for x in made if x.learns == "labelled"]
        asked = [part.strip() for part in self.detector.split(",")]
        if any(name in asked for name in labelled):
            raise DetectorError(
                f"expected detectors that need no labelled examples, got {labelled[0]!r}; "
                "it is measured, with each attack left out in turn, by experiments.detection.measure"
            )
        kept = {x.name: x for x in made if x.learns != "labelled"}
        notes = [f"{name} needs labelled examples of other attacks; left out" for name in labelled]
        return kept, notes

    def _subject(self, model: Any, prompts: Sequence[str]) -> Subject:  # noqa: ANN401
        return Subject(
            model,
            [Job(prompt, self.seed + i) for i, prompt in enumerate(prompts)],
            sampler=chosen_sampler(self.model, self.steps, self.guidance),
            clip=load_clip(self.clip),
            nouns=tuple(load_lexicon().concepts) if self.model == "world" else known_nouns(),
        )

    def _clean(self) -> list[str]:
        if self.clean_prompts is not None:
            found = read_prompts(self.clean_prompts)[: self.calibration]
            if len(found) < 4:
                raise PromptError(
                    f"expected at least 4 clean prompts in {str(self.clean_prompts)!r}, got "
                    f"{len(found)}; add some"
                )
            return found
        return [caption.text for caption in held_out(self.calibration, seed=1, split="test")]

    def _judge(self, detector: Detector, clean: Array, subject: Subject) -> dict[str, Any]:
        half = math.ceil(len(clean) / 2)
        learns = detector.learns != "nothing"
        fitting, held = (clean[:half], clean[half:]) if learns else (clean[:0], clean)
        scorer = detector.learn(fitting)
        limit = threshold(scorer(held), detector.direction, self.fpr)
        seen = detector(subject)
        scores = scorer(seen.features)
        return {
            "scores": scores.tolist(),
            "threshold": limit.value,
            "direction": detector.direction,
            "flagged": limit.flags(scores).tolist(),
            "fpr": limit.fpr,
            "calibration": limit.n,
            "unet_evaluations": seen.unet_evaluations,
            "seconds": seen.seconds,
        }


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        PromptError: no such file, or no prompt in it.
    """
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


def load_clip(wanted: str | None) -> ClipModel:
    """The model that looks at images: the world's judge A, or an open_clip model.

    Args:
        wanted: ``ARCH:FILE``, e.g. ``ViT-B-32:weights.safetensors``.

    Raises:
        ModelError: an unknown architecture, or weights that cannot be read.
    """
    if wanted is None:
        return load_judge_a()
    architecture, _, file = wanted.partition(":")
    if architecture not in open_clip.list_models() or not Path(file).is_file():
        raise ModelError(
            "expected ARCH:FILE with an architecture of open_clip and its weights, got "
            f"{wanted!r}; e.g. ViT-B-32:weights.safetensors"
        )
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=file)
    return ClipModel(model, preprocess, open_clip.get_tokenizer(architecture))


def _table(prompts: Sequence[str], found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="scores; flagged ones with ●", title_justify="left")
    table.add_column("prompt", overflow="fold")
    for name in found:
        table.add_column(name, justify="right")
    for i, prompt in enumerate(prompts):
        cells = [
            f"{entry['scores'][i]:.3g}{' ●' if entry['flagged'][i] else ''}"
            for entry in found.values()
        ]
        table.add_row(prompt, *cells)
    return table
