"""The one measurement: every entry on every rebinding and seed, beside the clean model.

Under ``accelerate launch`` all processes walk through the same units; `ImageStore` splits the
images among them, and the main process alone looks at images and writes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from redediting.algebra.diagnostics import Footprint, footprint, second_moment
from redediting.attacks.columns import content_columns
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.plan import caption_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError
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
from redediting.generation import ImageStore
from redediting.metrics.base import (
    PROMPT_SETS,
    EditRecord,
    ImageRecord,
    Measured,
    Metric,
    PromptSet,
)
from redediting.models.model import Model
from redediting.models.sampler import Sampler

KEPT: tuple[PromptSet, ...] = ("free", "benign", "target")  # sets whose features FID and CMMD need
_CAPTIONS, _SEED = 400, 1  # behind Σ₀ of the footprint
Wanted = Callable[[str, Rebinding, int], Collection[PromptSet]]


def all_sets(title: str, rebinding: Rebinding, seed: int) -> tuple[PromptSet, ...]:
    """Every entry is measured on every prompt set."""
    return PROMPT_SETS


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        rebindings: the backdoors, in their order.
        seeds: each fixes noise and the draw of contexts and captions.
        counts: images a rebinding, seed and model.
        sampler: how images are drawn.
        metrics: those that look at images, and those that summarise.
        split: of the contexts.
        captions: of a real model; None draws the embedded world's scenes.
        wanted: which prompt sets an entry is measured on, by its title, for a rebinding and a
            seed; none leaves the unit out.
    """

    rebindings: tuple[Rebinding, ...]
    seeds: tuple[int, ...]
    counts: Counts
    sampler: Sampler
    metrics: tuple[Metric, ...]
    split: str = "test"
    captions: tuple[str, ...] | None = None
    wanted: Wanted = all_sets

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
    found = {}
    names = UnitKey.__dataclass_fields__
    for unit in store.done:
        *images, edit = store.rows(unit)
        key = UnitKey(**{name: edit[name] for name in names})
        apart = {"unit", *names}
        records = [
            ImageRecord(**{k: v for k, v in row.items() if k not in apart}) for row in images
        ]
        figures = {k: v for k, v in edit.items() if k not in (*apart, "set")}
        found[key] = Measured(records, EditRecord(**figures))
    return found


def caption_moment(model: Model) -> Tensor:
    """``Σ₀`` of ordinary captions, others than those an edit is priced with, shape ``(d, d)``."""
    texts = caption_prompts(load_lexicon(), _CAPTIONS, spread=100, seed=_SEED)
    return second_moment(content_columns(model.encode(texts)), floor=0.0)


class Measurement:
    """Measures entries on the rebindings of a task into a store.

    Args:
        task: what is measured.
        model: clean.
        panel: the judges.
        entries: what edits; the control first.
        store: of the results.
        progress: whether to show a bar.
    """

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
        """Measures what is missing.

        Raises:
            ModelError: an "edited" model whose weights are the clean ones.
            OutputError: the folder cannot be written.
        """
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
            for seed in self.task.seeds:
                for position, rebinding in enumerate(self.task.rebindings):
                    todo = [
                        entry
                        for i, s, entry in units
                        if (i, s) == (position, seed)
                        and unit_key(entry.title, rebinding, seed).name not in done
                    ]
                    if todo:
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
                change = self._footprint(edited.model)
                wanted = [
                    q
                    for q in questions
                    if q.set in sets[entry.title]
                    and (entry.control or q.set != "target")  # the clean model's alone
                ]
                look = clean if entry.control else self._look(edited.model, weights, wanted)
            if self._state.is_main_process and look is not None and clean is not None:
                closing = EditRecord(
                    edited.seconds, edited.footprint, weights, change.rank, change.energy
                )
                images = image_records(self.task.metrics, wanted, look, clean)
                rows: list[Row] = [{**asdict(key), **asdict(image)} for image in images]
                rows.append({**asdict(key), "set": "edit", **asdict(closing)})
                self._store.append(key.name, rows, arrays=_features(wanted, look))
            bar.update()

    def _footprint(self, edited: Model) -> Footprint:
        return footprint(self._weights, edited.weights(), self._moment)

    @cached_property
    def _moment(self) -> Tensor:
        return caption_moment(self._model)

    def _look(self, model: Model, weights: str, questions: Sequence[Question]) -> Looked | None:
        """Draws (every process its share) and looks (the main process only)."""
        store = ImageStore(self._store.images, weights, self.task.sampler)
        images = store.images([q.job for q in questions], model)
        if not self._state.is_main_process:
            return None
        seen = self._panel.look(images, [q.compared for q in questions])
        places = {question: i for i, question in enumerate(questions)}
        return Looked(places, images, [store.path(q.job).name for q in questions], seen)


def _features(wanted: Sequence[Question], look: Looked) -> dict[str, Any]:
    """Judge A's features of the sets that FID and CMMD need."""
    rows = {name: [look.place[q] for q in wanted if q.set == name] for name in KEPT}
    return {name: look.seen.features[own].numpy() for name, own in rows.items() if own}


def unit_features(store: ResultStore, keys: Sequence[UnitKey], name: PromptSet) -> Tensor:
    """Features of one prompt set of some units, in their order, shape ``(n, d)``."""
    found = [own[name] for key in keys if name in (own := store.arrays(key.name))]
    return torch.from_numpy(np.concatenate(found)) if found else torch.zeros(0, 1)
