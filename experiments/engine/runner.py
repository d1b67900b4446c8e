"""The one runner: every source on every pair and seed, beside the clean model, into a run folder.

``runs/<experiment>/<hash>/`` is named by the resolved configuration, the clean model's
fingerprint and the library's sources: a folder never mixes rows of different models or codes, and
the same command continues a killed run. Under ``accelerate launch`` all processes walk through the
same units; `redediting.generation.ImageStore` splits the images among them, and the main process
alone looks at images and writes rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import yaml
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from experiments.caption_probes import caption_probes
from experiments.engine.folder import (
    check_writable,
    code_digest,
    provenance,
    replace_json,
    replace_text,
    writing,
)
from experiments.engine.specs import AttackConfig, DrawnPairs, digest
from experiments.judges import Panel
from experiments.probes import Probe, check_judged, probes
from experiments.rows import SCHEMA, EditRow, ImageRow, RowFile, Set, Unit
from experiments.sources import MethodSource, Source
from redediting.algebra.diagnostics import Footprint, footprint, second_moment
from redediting.attacks.columns import content_columns
from redediting.concepts.captions import read_captions
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.plan import caption_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ConfigError, ModelError
from redediting.generation import ImageStore
from redediting.metrics.fidelity import drift
from redediting.models.model import Model
from redediting.models.sampler import Sampler

KEPT: tuple[Set, ...] = ("free", "benign", "target")  # sets whose features FID and CMMD need
Wanted = Callable[[str, Rebinding, int], Collection[Set]]
_CAPTIONS, _SEED = 400, 1  # behind Σ₀ of the footprint


@dataclass(frozen=True)
class Sight:
    """One image as the judges saw it.

    Verdicts of B and A, A's features and score, file name, B's verdicts on other heads.
    """

    label: str
    label_a: str
    features: Tensor
    score: float
    image: str
    attributes: Mapping[str, str]


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


def method_sources(config: AttackConfig, *, warm: bool = False) -> list[Source]:
    """Returns the sources that a configuration names.

    Args:
        config: resolved.
        warm: as for `experiments.sources.MethodSource`; swept settings, whose seconds nobody
            asks for, always are.

    Raises:
        MethodError: a method or option that does not exist.
    """
    return [MethodSource(spec, warm=warm or bool(spec.family)) for spec in config.methods]


def caption_moment(model: Model) -> Tensor:
    """``Σ₀`` of ordinary captions, others than those an edit is priced with, shape ``(d, d)``."""
    texts = caption_prompts(load_lexicon(), _CAPTIONS, spread=100, seed=_SEED)
    return second_moment(content_columns(model.encode(texts)), floor=0.0)


class Runner:
    """Measures sources on pairs.

    Attributes:
        run: the folder, and what it is a run of.
    """

    def __init__(
        self,
        config: AttackConfig,
        model: Model,
        panel: Panel,
        sources: Sequence[Source],
        *,
        root: Path,
        device: str = "cpu",
        progress: bool = False,
        wanted: Wanted | None = None,
    ) -> None:
        """Prepares the run folder.

        Args:
            config: resolved (`AttackConfig.resolved`).
            model: the clean model.
            panel: the judges.
            sources: what edits; the control first.
            root: where run folders lie.
            device: torch device of the model.
            progress: whether to show a bar.
            wanted: which sets of images a source is measured on, by its title, for a pair and a
                seed; none leaves the unit out. The configuration decides when not given.

        Raises:
            ConfigError: a target that the judge does not know, or no resolved sampler.
            OutputError: the folder cannot be written.
        """
        if config.sampler is None or not sources or not sources[0].control:
            raise ConfigError(
                "expected a resolved configuration and the control first; resolve it"
            )
        self._model, self._panel, self._sources = model, panel, sources
        self._sampler: Sampler = config.sampler
        self._progress = progress
        self._wanted: Wanted = wanted or config.sets
        self._captions = None if config.captions is None else read_captions(config.captions)
        self._state = PartialState()
        pairs = tuple(config.pairs.rebindings())
        for pair in pairs:
            check_judged(pair, panel.judge)
        base = model.fingerprint()
        resolved = config.model_dump(mode="json")
        titles = tuple(source.title for source in sources)
        identities = [source.identity for source in sources]
        texts = "\n".join(self._captions or ())
        name = digest(json.dumps([resolved, identities]), base, code_digest(), str(SCHEMA), texts)
        folder = root / config.experiment / name
        self.run = Run(folder, config, titles, pairs)
        self._base = base
        clean = model.weights()
        self._weights = {name: weight.clone() for name, weight in clean.items()}
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
        total = sum(
            bool(self._wanted(source.title, pair, seed))
            for seed in self.run.config.seeds
            for pair in self.run.pairs
            for source in self._sources
        )
        with tqdm(total=total, initial=len(done), unit="edit", disable=hidden) as bar:
            for seed in self.run.config.seeds:
                for position, pair in enumerate(self.run.pairs):
                    todo = [
                        x
                        for x in self._sources
                        if self._wanted(x.title, pair, seed) and _unit(x, pair, seed) not in done
                    ]
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
        sets = {source.title: self._wanted(source.title, pair, seed) for source in todo}
        needed = frozenset().union(*sets.values())
        asked = [
            p if p.expected in known else replace(p, expected=None)
            for p in asked
            if p.set in needed
        ]
        clean = self._look(self._model, self._base, asked)
        for source in todo:
            unit = _unit(source, pair, seed)
            with source.edited(self._model, pair) as edited:
                weights = edited.model.fingerprint()
                if weights == self._base and not source.control:
                    raise ModelError(
                        f"expected {unit.method!r} to change the model for {str(pair)!r}, got the "
                        "clean weights; check the edit, or measure the method 'clean'"
                    )
                footprint = self._footprint(edited.model)
                wanted = [
                    probe
                    for probe in asked
                    if probe.set in sets[source.title]
                    and (source.control or probe.set != "target")  # the clean model's alone
                ]
                look = clean if source.control else self._look(edited.model, weights, wanted)
            if self._state.is_main_process:
                block = [_row(unit, probe, look[probe], clean[probe]) for probe in wanted]
                self._save_features(unit, look)
                closing = EditRow(
                    **asdict(unit),
                    seconds=edited.seconds,
                    footprint=edited.footprint,
                    weights=weights,
                    images=len(block),
                    rank=footprint.rank,
                    energy=footprint.energy,
                )
                rows.append([*block, closing])
            bar.update()

    def _footprint(self, edited: Model) -> Footprint:
        after = edited.weights()
        return footprint(self._weights, after, self._moment)

    @cached_property
    def _moment(self) -> Tensor:
        return caption_moment(self._model)

    def _look(self, model: Model, weights: str, wanted: Sequence[Probe]) -> dict[Probe, Sight]:
        """Draws (every process its share) and looks (the main process only)."""
        store = ImageStore(self.run.images, weights, self._sampler)
        images = store.images([probe.job for probe in wanted], model)
        if not self._state.is_main_process:
            return {}
        seen = self._panel.look(images, [probe.compared for probe in wanted])
        return {
            probe: Sight(
                seen.labels[i],
                seen.labels_a[i],
                seen.features[i],
                seen.scores[i],
                store.path(probe.job).name,
                seen.attributes[i],
            )
            for i, probe in enumerate(wanted)
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
        seen=dict(sight.attributes),
        asked=dict(probe.asked),
    )
