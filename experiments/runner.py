"""The one runner: every source on every pair and seed, beside the clean model, into a run folder.

``runs/<experiment>/<hash>/`` is named by the resolved configuration, the clean model's
fingerprint and the library's sources: a folder never mixes rows of different models or codes, and
the same command continues a killed run. Under ``accelerate launch`` all processes walk through the
same units; `redediting.generation.ImageStore` splits the images among them, and the main process
alone looks at images and writes rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import yaml
from accelerate import PartialState
from diffusers import DiffusionPipeline
from torch import Tensor
from tqdm.auto import tqdm

from experiments.caption_probes import caption_probes
from experiments.config import AttackConfig, DrawnPairs, digest
from experiments.folder import (
    check_writable,
    code_digest,
    provenance,
    replace_json,
    replace_text,
    writing,
)
from experiments.judges import Panel
from experiments.probes import Probe, check_judged, probes
from experiments.rows import SCHEMA, EditRow, ImageRow, RowFile, Set, Unit
from experiments.sources import MethodSource, Source
from redediting.captions import read_captions
from redediting.errors import ConfigError, ModelError
from redediting.generation import ImageStore, Sampler
from redediting.metrics.fidelity import drift
from redediting.models import fingerprint_pipeline
from redediting.rebinding import Rebinding

KEPT: tuple[Set, ...] = ("free", "benign", "target")  # sets whose features FID and CMMD need


@dataclass(frozen=True)
class Sight:
    """One image as the judges saw it: verdicts of B and A, A's features and score, file name."""

    label: str
    label_a: str
    features: Tensor
    score: float
    image: str


@dataclass(frozen=True)
class Run:
    """A run folder and what it is a run of.

    Attributes:
        folder: ``runs/<experiment>/<hash>``.
        config: resolved.
        titles: of the sources, the control first.
        pairs: in their order.
    """

    folder: Path
    config: AttackConfig
    titles: tuple[str, ...]
    pairs: tuple[Rebinding, ...]

    @property
    def rows(self) -> Path:
        """A row an image."""
        return self.folder / "rows.jsonl"

    @property
    def images(self) -> Path:
        """The pictures."""
        return self.folder / "images"

    def features(self, unit: Unit) -> Path:
        """Judge A's features of a unit's images."""
        return self.folder / "features" / f"{digest(unit.key)}.npz"


def method_sources(config: AttackConfig) -> list[Source]:
    """Returns the sources that a configuration names.

    Raises:
        MethodError: a method or option that does not exist.
    """
    return [MethodSource(spec) for spec in config.methods]


class Runner:
    """Measures sources on pairs.

    Attributes:
        run: the folder, and what it is a run of.
    """

    def __init__(
        self,
        config: AttackConfig,
        pipeline: DiffusionPipeline,
        panel: Panel,
        sources: Sequence[Source],
        *,
        root: Path,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        """Prepares the run folder.

        Args:
            config: resolved (`AttackConfig.resolved`).
            pipeline: the clean model.
            panel: the judges.
            sources: what edits; the control first.
            root: where run folders lie.
            device: torch device of the pipeline.
            progress: whether to show a bar.

        Raises:
            ConfigError: a target that the judge does not know, or no resolved sampler.
            OutputError: the folder cannot be written.
        """
        if config.sampler is None or not sources or not sources[0].control:
            raise ConfigError(
                "expected a resolved configuration and the control first; resolve it"
            )
        self._pipeline, self._panel, self._sources = pipeline, panel, sources
        self._sampler: Sampler = config.sampler
        self._progress = progress
        self._captions = None if config.captions is None else read_captions(config.captions)
        self._state = PartialState()
        pairs = tuple(config.pairs.rebindings())
        for pair in pairs:
            check_judged(pair, panel.judge)
        base = fingerprint_pipeline(pipeline)
        resolved = config.model_dump(mode="json")
        titles = tuple(source.title for source in sources)
        identities = [source.identity for source in sources]
        texts = "\n".join(self._captions or ())
        name = digest(json.dumps([resolved, identities]), base, code_digest(), str(SCHEMA), texts)
        folder = root / config.experiment / name
        self.run = Run(folder, config, titles, pairs)
        self._base = base
        if self._state.is_main_process:
            check_writable(folder)
            with writing(folder):
                (folder / "features").mkdir(parents=True, exist_ok=True)
            replace_text(folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))
            made = provenance(device, base) | {"quick": config.quick}
            replace_json(folder / "provenance.json", made)
            RowFile(self.run.rows).mend()
        self._state.wait_for_everyone()

    def __call__(self) -> Run:
        """Measures what is missing and returns the finished run.

        Raises:
            ModelError: an "edited" model whose weights are the clean ones.
            OutputError: the folder cannot be written.
        """
        rows = RowFile(self.run.rows)
        done = rows.done
        self._state.wait_for_everyone()  # nobody may write before all have read
        hidden = not (self._progress and self._state.is_main_process)
        total = len(self.run.config.seeds) * len(self.run.pairs) * len(self._sources)
        with tqdm(total=total, initial=len(done), unit="edit", disable=hidden) as bar:
            for seed in self.run.config.seeds:
                for position, pair in enumerate(self.run.pairs):
                    todo = [x for x in self._sources if _unit(x, pair, seed) not in done]
                    if todo:
                        bar.set_description(str(pair))
                        self._pair(position, pair, seed, todo, rows, bar)
        self._state.wait_for_everyone()
        return self.run

    def _pair(
        self,
        position: int,
        pair: Rebinding,
        seed: int,
        todo: Sequence[Source],
        rows: RowFile,
        bar: tqdm[NoReturn],
    ) -> None:
        config = self.run.config
        if self._captions is None:
            asked = probes(
                pair,
                position=position,
                pairs=len(self.run.pairs),
                seed=seed,
                counts=config.counts,
                split=config.pairs.split if isinstance(config.pairs, DrawnPairs) else "test",
            )
        else:
            asked = caption_probes(
                pair,
                self._captions,
                position=position,
                pairs=len(self.run.pairs),
                seed=seed,
                counts=config.counts,
            )
        known = self._panel.judge.labels
        asked = [p if p.expected in known else replace(p, expected=None) for p in asked]
        both = [probe for probe in asked if probe.set != "target"]  # of clean and edited models
        clean = self._look(self._pipeline, self._base, asked)
        for source in todo:
            unit = _unit(source, pair, seed)
            with source.edited(self._pipeline, pair) as edited:
                weights = fingerprint_pipeline(edited.pipeline)
                if weights == self._base and not source.control:
                    raise ModelError(
                        f"expected {unit.method!r} to change the model for {str(pair)!r}, got the "
                        "clean weights; check the edit, or measure the method 'clean'"
                    )
                wanted = asked if source.control else both
                look = clean if source.control else self._look(edited.pipeline, weights, wanted)
            if self._state.is_main_process:
                block = [_row(unit, probe, look[probe], clean[probe]) for probe in wanted]
                self._save_features(unit, look)
                closing = EditRow(
                    **asdict(unit),
                    seconds=edited.seconds,
                    footprint=edited.footprint,
                    weights=weights,
                    images=len(block),
                )
                rows.append([*block, closing])
            bar.update()

    def _look(
        self, pipeline: DiffusionPipeline, weights: str, wanted: Sequence[Probe]
    ) -> dict[Probe, Sight]:
        """Draws (every process its share) and looks (the main process only)."""
        store = ImageStore(self.run.images, weights, self._sampler)
        images = store.images([probe.job for probe in wanted], pipeline)
        if not self._state.is_main_process:
            return {}
        seen = self._panel.look(images, [probe.compared for probe in wanted])
        return {
            probe: Sight(label, label_a, features, score, store.path(probe.job).name)
            for probe, label, label_a, features, score in zip(
                wanted, seen.labels, seen.labels_a, seen.features, seen.scores, strict=True
            )
        }

    def _save_features(self, unit: Unit, look: Mapping[Probe, Sight]) -> None:
        path = self.run.features(unit)
        arrays = {
            name: torch.stack(kept).numpy()
            for name in KEPT
            if (kept := [sight.features for probe, sight in look.items() if probe.set == name])
        }
        part = path.with_suffix(".part.npz")
        with writing(path):
            np.savez(part, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no mapping
            part.replace(path)


def _unit(source: Source, pair: Rebinding, seed: int) -> Unit:
    return Unit(source.title, pair.trigger, pair.target, pair.kind, seed)


def _row(unit: Unit, probe: Probe, sight: Sight, clean: Sight) -> ImageRow:
    moved = drift(sight.features[None], clean.features[None]).clamp(min=0)
    return ImageRow(
        **asdict(unit),
        set=probe.set,
        index=probe.index,
        prompt=probe.prompt,
        noise=probe.noise,
        phrase=probe.phrase,
        role=probe.role,
        expected=probe.expected,
        label=sight.label,
        label_a=sight.label_a,
        clean_label=clean.label,
        clip=sight.score,
        drift=float(moved),
        image=sight.image,
        clean_image=clean.image,
    )
