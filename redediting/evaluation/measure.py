"""The one measurement: every entry on every rebinding and seed, beside the clean model, as a run.

Under ``accelerate launch`` all processes walk through the same units; `ImageStore` splits the
images among them, and the main process alone looks at images and writes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from redediting.algebra.diagnostics import footprint, second_moment
from redediting.attacks.columns import content_columns
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.plan import caption_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.config import Config
from redediting.errors import ConfigError, ModelError
from redediting.evaluation.entries import Entry
from redediting.evaluation.panel import Panel
from redediting.evaluation.protocol import (
    Counts,
    Place,
    Question,
    caption_questions,
    world_questions,
)
from redediting.evaluation.records import Looked, image_records
from redediting.evaluation.store import ResultStore, Row
from redediting.evaluation.units import shared_store
from redediting.generation import ImageStore
from redediting.metrics.base import (
    PROMPT_SETS,
    EditRecord,
    ImageRecord,
    Measured,
    Metric,
    PromptSet,
)
from redediting.metrics.judge import check_labels
from redediting.models.model import Model
from redediting.models.sampler import Sampler

_MEASURED_BY = ("redediting.evaluation.measure", "redediting.evaluation.summary")
KEPT: tuple[PromptSet, ...] = ("free", "benign", "target")  # sets whose features FID and CMMD need
_CAPTIONS, _SEED = 400, 1  # behind Σ₀ of the footprint
Wanted = Callable[[str, Rebinding, int], Collection[PromptSet]]


@dataclass(frozen=True)
class Task:
    """What is measured.

    ``captions`` are a real model's; None draws the embedded world's scenes. ``wanted`` says which
    prompt sets an entry is measured on, by its title, for a rebinding and a seed; none leaves the
    unit out.
    """

    rebindings: tuple[Rebinding, ...]
    seeds: tuple[int, ...]
    counts: Counts
    sampler: Sampler
    metrics: tuple[Metric, ...]
    split: str = "test"
    captions: tuple[str, ...] | None = None
    wanted: Wanted = lambda title, rebinding, seed: PROMPT_SETS

    def questions(self, position: int, seed: int) -> list[Question]:
        """Everything that is asked about a rebinding."""
        place = Place(position, len(self.rebindings), seed)
        rebinding = self.rebindings[position]
        if self.captions is not None:
            return caption_questions(rebinding, self.captions, place, self.counts)
        return world_questions(rebinding, place, self.counts, split=self.split)


@dataclass(frozen=True)
class UnitKey:
    """What one edit is measured on."""

    method: str
    trigger: str
    target: str
    kind: str
    seed: int

    @property
    def name(self) -> str:
        """Names the unit in the store."""
        return f"{self.method}/{self.trigger}/{self.target}/{self.seed}"


def unit_key(title: str, rebinding: Rebinding, seed: int) -> UnitKey:
    """The unit of an entry."""
    return UnitKey(title, rebinding.trigger, rebinding.target, rebinding.kind, seed)


def measured_units(store: ResultStore) -> dict[UnitKey, Measured]:
    """Everything that a run has measured, in the order written."""
    names = UnitKey.__dataclass_fields__

    def without(row: Row, *further: str) -> Row:
        return {k: v for k, v in row.items() if k not in ("unit", *names, *further)}

    found = {}
    for unit in store.done:
        *images, edit = store.rows(unit)
        records = [ImageRecord(**without(row)) for row in images]
        key = UnitKey(**{name: edit[name] for name in names})
        found[key] = Measured(records, EditRecord(**without(edit, "set")))
    return found


def caption_moment(model: Model) -> Tensor:
    """``Σ₀`` of ordinary captions, others than those an edit is priced with, shape ``(d, d)``."""
    texts = caption_prompts(load_lexicon(), _CAPTIONS, spread=100, seed=_SEED)
    return second_moment(content_columns(model.encode(texts)), floor=0.0)


class Measurement:
    """Measures entries, the control first, on the rebindings of a task into a store."""

    def __init__(
        self,
        task: Task,
        model: Model,
        panel: Panel,
        entries: Sequence[Entry],
        store: ResultStore,
        *,
        progress: bool = False,
    ) -> None:
        self.task, self._model, self._panel = task, model, panel
        self._entries, self._store, self._progress = entries, store, progress
        self._state = PartialState()
        self._base = model.fingerprint()
        self._weights = {name: weight.clone() for name, weight in model.weights().items()}

    def __call__(self) -> None:
        """Measures what is missing; `ModelError` for an "edit" that leaves the clean weights."""
        done = set(self._store.done)
        self._state.wait_for_everyone()  # nobody may write before all have read
        hidden = not (self._progress and self._state.is_main_process)
        units = [
            (position, seed, entry)
            for seed in self.task.seeds
            for position, rebinding in enumerate(self.task.rebindings)
            for entry in self._entries
            if self.task.wanted(entry.title, rebinding, seed)
        ]
        with tqdm(total=len(units), initial=len(done), unit="edit", disable=hidden) as bar:
            for (position, seed), group in groupby(units, key=itemgetter(0, 1)):
                rebinding = self.task.rebindings[position]
                keys = {unit_key(e.title, rebinding, seed).name: e for *_, e in group}
                if todo := [entry for name, entry in keys.items() if name not in done]:
                    bar.set_description(str(rebinding))
                    self._rebinding(position, seed, todo, bar)
        self._state.wait_for_everyone()

    def _rebinding(
        self, position: int, seed: int, todo: Sequence[Entry], bar: tqdm[NoReturn]
    ) -> None:
        rebinding, known = self.task.rebindings[position], self._panel.judge.labels
        sets = {entry.title: self.task.wanted(entry.title, rebinding, seed) for entry in todo}
        needed = frozenset().union(*sets.values())
        questions = [
            q if q.expected in known else replace(q, expected=None)
            for q in self.task.questions(position, seed)
            if q.set in needed
        ]
        clean = self._look(self._model, self._base, questions)
        for entry in todo:
            key = unit_key(entry.title, rebinding, seed)
            with entry.edited(self._model, rebinding) as edited:
                weights = edited.model.fingerprint()
                if weights == self._base and not entry.control:
                    raise ModelError(
                        f"expected {key.method!r} to change the model for {str(rebinding)!r}, got "
                        "the clean weights; check the edit, or measure the method 'clean'"
                    )
                change = footprint(self._weights, edited.model.weights(), self._moment)
                own = sets[entry.title]  # the target prompts are the clean model's alone
                wanted = [
                    q for q in questions if q.set in own and (entry.control or q.set != "target")
                ]
                look = clean if entry.control else self._look(edited.model, weights, wanted)
            if look is not None and clean is not None:
                closing = EditRecord(
                    edited.seconds, edited.footprint, weights, change.rank, change.energy
                )
                images = image_records(self.task.metrics, wanted, look, clean)
                rows: list[Row] = [{**asdict(key), **asdict(image)} for image in images]
                rows.append({**asdict(key), "set": "edit", **asdict(closing)})
                kept: dict[str, list[int]] = {
                    name: [look.place[q] for q in wanted if q.set == name] for name in KEPT
                }
                arrays = {n: look.seen.features[at].numpy() for n, at in kept.items() if at}
                self._store.append(key.name, rows, arrays=arrays)
            bar.update()

    @cached_property
    def _moment(self) -> Tensor:
        return caption_moment(self._model)

    def _look(self, model: Model, weights: str, questions: Sequence[Question]) -> Looked | None:
        """Draws (every process its share) and looks (the main process only)."""
        store = ImageStore(self._store.images, weights, self.task.sampler)
        images = store.images([q.job for q in questions], model)
        if not self._state.is_main_process:
            return None
        compared, expected = zip(*((q.compared, q.expected) for q in questions), strict=True)
        seen = self._panel.look(images, compared, expected)
        places = {question: i for i, question in enumerate(questions)}
        return Looked(places, images, [store.path(q.job).name for q in questions], seen)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, what was measured, the entries' titles, the control first."""

    store: ResultStore
    task: Task
    titles: tuple[str, ...]
    panel: Panel

    @cached_property
    def units(self) -> dict[UnitKey, Measured]:
        """Everything that was measured."""
        return measured_units(self.store)

    def features(self, title: str, name: PromptSet) -> Tensor:
        """Judge A's features of one prompt set of an entry, over all units, ``(n, d)``."""
        pairs = [(pair, seed) for seed in self.task.seeds for pair in self.task.rebindings]
        arrays = [self.store.arrays(unit_key(title, pair, seed).name) for pair, seed in pairs]
        found = [own[name] for own in arrays if name in own]
        return torch.from_numpy(np.concatenate(found)) if found else torch.zeros(0, 1)


def run_task(
    experiment: str,
    config: Config,
    task: Task,
    model: Model,
    panel: Panel,
    entries: Sequence[Entry],
    *,
    out: Path,
    quick: bool = False,
    progress: bool = False,
) -> Run:
    """Measures what ``OUT/EXPERIMENT/NAME`` has not got, and returns the run.

    The name covers the resolved ``config``, the clean model, the entries, of which the control
    comes first, and the sources. ``quick`` marks a reduced run.

    Raises:
        ConfigError: a target that the judge does not know, or no control.
        MetricError: a metric without what it needs.
        ModelError: an "edited" model whose weights are the clean ones.
        OutputError: the folder cannot be written.
    """
    if not entries or not entries[0].control:
        raise ConfigError("expected the control first among the entries; add the attack 'clean'")
    attacks = [entry.attack for entry in entries if hasattr(entry, "attack")]
    for rebinding in task.rebindings:
        check_labels(panel.judge, [rebinding.target_head])
    for metric in task.metrics:
        metric.check()
    store = shared_store(
        out, experiment, config=config, base=model.fingerprint(),
        measured_by=[*_MEASURED_BY, *attacks, *task.metrics, panel.judge, model.layout],
        device=str(model.device), quick=quick,
        extra=["\n".join(task.captions or ()), *(entry.identity for entry in entries)],
    )  # fmt: skip
    Measurement(task, model, panel, entries, store, progress=progress)()
    finished = ResultStore(store.folder)  # every process sees the rows that the main one wrote
    return Run(finished, task, tuple(entry.title for entry in entries), panel)
