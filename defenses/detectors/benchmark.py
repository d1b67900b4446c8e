"""Detectors measured: every attack on every pair, examined by every detector, a unit at a time.

A unit is one attack on one pair, or a part of the clean model's calibration. Its rows are the
prompts and, last, what was measured once: costs, the edit, localisation, rewording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from defenses.detectors.base import Array, Detector
from defenses.detectors.inputs import Subject
from defenses.detectors.localisation import locate
from defenses.perturbation import PERTURBATIONS, perturb
from redediting.attacks.base import Attack
from redediting.concepts.rebinding import Rebinding
from redediting.config import Config
from redediting.errors import ModelError
from redediting.evaluation.cells import Cell, calibration, triggered_and_benign
from redediting.evaluation.entries import CONTROL, AttackEntry, Edited
from redediting.evaluation.panel import Panel
from redediting.evaluation.store import ResultStore, Row
from redediting.evaluation.units import fill
from redediting.generation import Job, draw
from redediting.io import digest, writing
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.text.encoding import shown_tokens

CHUNK = 100  # calibration prompts a unit
SHOWN = 3  # images a cell that are kept for the page


class DetectionCounts(Config):
    """How much is drawn.

    Attributes:
        prompts: triggered ones a pair, and as many benign ones of the same contexts and noise.
        calibration: clean prompts on the clean model, for thresholds.
        located: triggered prompts a pair in which the trigger is searched.
        reworded: triggered prompts, and benign ones, a pair that are reworded.
    """

    prompts: int = Field(default=20, ge=2)
    calibration: int = Field(default=600, ge=8)
    located: int = Field(default=6, ge=0)
    reworded: int = Field(default=6, ge=0)


@dataclass(frozen=True)
class Unit:
    """One attack on one pair; without a pair, a part of the calibration.

    Attributes:
        attack: title; ``clean`` for the clean model.
        rebinding: the pair as the attack builds it in.
        position: of the pair, or of the part of the calibration.
        edit: the attack itself; None for the clean model.
    """

    attack: str
    rebinding: Rebinding | None
    position: int
    edit: Attack | None = None

    @property
    def name(self) -> str:
        """Identifies it in the store."""
        return f"{self.attack}/{self.rebinding or 'calibration'}/{self.position}"

    def image(self, cell: str, i: int) -> str:
        """File name of a kept image."""
        return f"{digest(self.name)}.{cell}.{i}.png"


@dataclass(frozen=True)
class Found:
    """A finished unit.

    Attributes:
        unit: which.
        rows: a row a prompt.
        record: costs, the edit, localisation and rewording.
        arrays: features by ``detector/cell``, judge A's by ``image/cell``, and
            maps and rates of attention.
    """

    unit: Unit
    rows: list[Row]
    record: Row
    arrays: Mapping[str, Array]

    @classmethod
    def read(cls, store: ResultStore, unit: Unit) -> Found:
        """Reads a unit of a run."""
        *rows, record = store.rows(unit.name)
        return cls(unit, rows, record, store.arrays(unit.name))

    def features(self, title: str, cell: str) -> Array:
        """A detector's features of a cell, shape ``(n, k)``."""
        return self.arrays[f"{title}/{cell}"].astype(np.float64)

    def of(self, cell: str, key: str) -> list[Any]:
        """A value of each prompt of a cell."""
        return [row[key] for row in self.rows if row["cell"] == cell]


class Benchmark:
    """What is measured of detectors.

    Args:
        model: the clean model.
        panel: the judges; A also serves the detectors that look at images.
        detectors: by title.
        units: in the order in which they are written.
        store: of the results.
        counts: how much is drawn.
        sampler: how images are drawn.
        seed: of contexts, captions and noise.
    """

    def __init__(
        self,
        model: Model,
        panel: Panel,
        detectors: Mapping[str, Detector],
        units: Sequence[Unit],
        store: ResultStore,
        *,
        counts: DetectionCounts,
        sampler: Sampler,
        seed: int = 0,
    ) -> None:
        self.model, self.detectors, self.units, self.store = model, detectors, units, store
        self._panel, self._counts, self._sampler, self._seed = panel, counts, sampler, seed
        self._base = model.fingerprint()
        self._trusted = model.with_copies(("text_encoder",))  # patches change the model in place

    def __call__(self, *, progress: bool = False) -> list[Found]:
        """Measures what is missing and returns everything.

        Raises:
            ModelError: an "edited" model whose weights are the clean ones.
            OutputError: the folder cannot be written.
        """
        units = {unit.name: unit for unit in self.units}
        fill(self.store, units, self._measure, progress=progress)
        return [Found.read(self.store, u) for u in units.values() if u.name in self.store]

    def _cells(self, unit: Unit) -> tuple[Cell, ...]:
        counts, seed = self._counts, self._seed
        if unit.rebinding is not None:
            return triggered_and_benign(
                unit.rebinding, self.model.tokenizer, n=counts.prompts, seed=seed,
                position=unit.position,
            )  # fmt: skip
        triggers = list(dict.fromkeys(u.rebinding for u in self.units if u.rebinding))
        whole = calibration(counts.calibration, seed=seed, rebindings=triggers)
        return (whole[unit.position * CHUNK : (unit.position + 1) * CHUNK],)

    @contextmanager
    def _in_force(self, unit: Unit) -> Iterator[Edited]:
        if unit.edit is None or unit.rebinding is None:
            yield Edited(self.model, 0.0, 0.0)
            return
        with AttackEntry(unit.edit).edited(self.model, unit.rebinding) as edited:
            if self.model.fingerprint() == self._base:
                raise ModelError(
                    f"expected {unit.attack!r} to change the model for {str(unit.rebinding)!r}, "
                    "got the clean weights; check the attack's options"
                )
            yield edited

    def _measure(self, unit: Unit) -> tuple[list[Row], dict[str, Array]]:
        rows: list[Row] = []
        arrays: dict[str, Array] = {}
        last: Row = {"cell": "unit", "unet_evaluations": {}, "seconds": {}, "tokens": {}}
        with self._in_force(unit) as edit:
            for cell in self._cells(unit):
                subject = Subject(
                    self.model, cell.jobs, sampler=self._sampler, clip=self._panel.clip,
                    nouns=self._panel.judge.labels, trusted=self._trusted,
                )  # fmt: skip
                for title, detector in self.detectors.items():
                    seen = detector(subject)
                    arrays[f"{title}/{cell.name}"] = seen.features.astype(np.float32)
                    last["unet_evaluations"].setdefault(title, seen.unet_evaluations)
                    last["seconds"].setdefault(title, seen.seconds)
                rows += self._rows(unit, cell, subject, arrays)
                recorded, first = subject.recorded, subject.recorded.lengths[0] + 1
                arrays[f"maps/{cell.name}"] = recorded.grids()[0, :first].numpy()
                arrays[f"rates/{cell.name}"] = recorded.end_rates
                last["tokens"][cell.name] = shown_tokens(self.model.tokenizer, cell.jobs[0].prompt)
                if unit.rebinding is not None:
                    with writing(self.store.images):
                        for i, image in enumerate(recorded.images[:SHOWN]):
                            image.save(self.store.images / unit.image(cell.name, i))
                    if unit.attack != CONTROL:
                        last |= self._extras(unit.rebinding, cell, subject)
            last |= {"edit_seconds": edit.seconds, "footprint": edit.footprint}
        return [*rows, last], arrays

    def _rows(
        self, unit: Unit, cell: Cell, subject: Subject, arrays: dict[str, Array]
    ) -> list[Row]:
        images = subject.recorded.images
        labels = self._panel.judge.objects(images)
        arrays[f"image/{cell.name}"] = self._panel.clip.image_features(images).numpy()
        pair = unit.rebinding
        common = {
            "attack": unit.attack, "cell": cell.name, "trigger": pair and pair.trigger,
            "target": pair and pair.target, "kind": pair and pair.kind,
        }  # fmt: skip
        return [
            common | {
                "index": i, "prompt": job.prompt, "noise": job.seed, "phrase": cell.phrases[i],
                "expected": cell.expected[i], "label": labels[i],
                "hit": pair is not None and labels[i] == pair.target_head,
            }
            for i, job in enumerate(cell.jobs)
        ]  # fmt: skip

    def _extras(self, pair: Rebinding, cell: Cell, subject: Subject) -> Row:
        """Localisation of the trigger, and what rewording leaves."""
        counts = self._counts
        found: Row = {}
        if cell.name == "triggered" and counts.located:
            located = locate(subject, first=counts.located)
            found["located"] = [
                {"word": x.word, "hit": x.hit(pair.trigger), "cost": x.unet_evaluations}
                for x in located
            ]
        wanted = pair.target_head if cell.name == "triggered" else pair.head
        jobs = cell.jobs[: counts.reworded]
        reworded = [Job(perturb(name, x.prompt), x.seed) for name in PERTURBATIONS for x in jobs]
        images = [image for _, image in draw(self.model, reworded, sampler=self._sampler)]
        labels = self._panel.judge.objects(images) if images else []
        for i, name in enumerate(PERTURBATIONS if jobs else ()):
            own = labels[i * len(jobs) : (i + 1) * len(jobs)]
            found[f"{name}_{cell.name}"] = [label == wanted for label in own]
        return found
