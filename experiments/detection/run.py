"""The runner: every attack on every pair, examined by every detector, unit by unit.

A unit is a piece of the clean model's work or one attack on one pair; its rows and features are
written whole or not at all (``units/``), so that a killed run continues with the next unit and
ends with the same rows. ``rows.jsonl``, a row a prompt, is put together from the units.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm.auto import tqdm

from defenses.detectors.base import Array, Detector
from defenses.detectors.inputs import Subject
from defenses.detectors.recording import Recorded
from defenses.localisation import locate
from defenses.perturbation import PERTURBATIONS, perturb
from experiments.detection.cells import Asked, Cell, calibration, triggered_and_benign
from experiments.detection.config import AttackSpec, DetectionConfig
from experiments.engine.folder import (
    check_writable,
    code_digest,
    provenance,
    replace_json,
    replace_text,
    writing,
)
from experiments.engine.specs import CONTROL, digest
from experiments.judges import Panel
from experiments.sources import MethodSource
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ConfigError, ModelError
from redediting.generation import Job, draw
from redediting.metrics.judge import check_labels
from redediting.models.model import Model
from redediting.models.sampler import Sampler

SCHEMA = 1  # what a unit's files mean
CHUNK = 100  # calibration prompts a unit
SHOWN = 3  # pictures a cell that are kept for the page


@dataclass(frozen=True)
class Unit:
    """One attack on one pair, or a piece of the clean model's work.

    Attributes:
        attack: title; ``clean`` is the clean model.
        rebinding: the pair; None for calibration.
        position: of the pair in the run, or of the piece of calibration.
    """

    attack: str
    rebinding: Rebinding | None
    position: int

    @property
    def name(self) -> str:
        """Of its files."""
        about = "calibration" if self.rebinding is None else f"{self.rebinding}"
        return digest(self.attack, about, str(self.position))


@dataclass(frozen=True)
class Found:
    """A finished unit.

    Attributes:
        unit: which.
        record: rows, costs, seconds, localisation and rewording, as in the unit's JSON.
        arrays: features by ``detector/cell``, judge A's features by ``image/cell``, and what the
            page shows of the first prompts.
    """

    unit: Unit
    record: Mapping[str, Any]
    arrays: Mapping[str, Array]

    def rows(self, cell: Cell) -> list[dict[str, Any]]:
        """The rows of a cell, in their order."""
        return [row for row in self.record["rows"] if row["cell"] == cell]


class DetectionRun:
    """A run folder and the work that fills it.

    Attributes:
        folder: ``runs/detection/<hash>``.
        config: resolved.
        detectors: by title.
        pairs: the rebindings as drawn.
    """

    def __init__(
        self,
        config: DetectionConfig,
        model: Model,
        panel: Panel,
        *,
        root: Path,
        device: str = "cpu",
    ) -> None:
        """Prepares the run folder.

        Args:
            config: resolved (`DetectionConfig.resolved`).
            model: the clean model.
            panel: the judges; A also serves the detectors that look at images.
            root: where run folders lie.
            device: torch device of the model.

        Raises:
            ConfigError: a target that the judge does not know, or no resolved sampler.
            OutputError: the folder cannot be written.
        """
        if config.sampler is None:
            raise ConfigError("expected a resolved configuration, got no sampler; resolve it")
        self.config, self._model, self._panel = config, model, panel
        self._sampler: Sampler = config.sampler
        self.detectors: dict[str, Detector] = {s.title: s.build() for s in config.detectors}
        if len(self.detectors) < len(config.detectors):
            raise ConfigError(
                f"expected a label of its own for each detector, got {list(self.detectors)} "
                f"for {len(config.detectors)}; give labels"
            )
        self.pairs = tuple(config.pairs.rebindings())
        for pair in self.pairs:
            check_labels(panel.judge, [pair.target_head])
        self._base = model.fingerprint()
        resolved = config.model_dump(mode="json")
        code = code_digest("redediting", "defenses")
        own = [spec.name for spec in config.detectors if spec.name.endswith(".py")]
        texts = [Path(name).read_text("utf-8") for name in own]  # read once by its builder
        name = digest(json.dumps(resolved), self._base, code, str(SCHEMA), *texts)
        self.folder = root / config.experiment / name
        check_writable(self.folder)
        with writing(self.folder):
            for part in ("units", "images"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        replace_text(self.folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))
        made = provenance(device, self._base) | {"quick": config.quick}
        replace_json(self.folder / "provenance.json", made)

    @cached_property
    def units(self) -> list[Unit]:
        """All units: calibration, the clean model on every trigger, then the attacks."""
        rebindings = [spec.rebinding(pair) for spec in self.config.attacks for pair in self.pairs]
        own = list(dict.fromkeys(rebindings))
        place = {pair: i for i, pair in enumerate(self.pairs)}
        chunks = range(-(-self.config.counts.calibration // CHUNK))
        clean = [Unit(CONTROL, rebinding, i % len(self.pairs)) for i, rebinding in enumerate(own)]
        attacks = [
            Unit(spec.title, spec.rebinding(pair), place[pair])
            for spec in self.config.attacks
            for pair in self.pairs
        ]
        return [*(Unit(CONTROL, None, i) for i in chunks), *clean, *attacks]

    def __call__(self, *, progress: bool = False) -> list[Found]:
        """Measures what is missing and returns every unit.

        Args:
            progress: whether to show a bar.

        Raises:
            ModelError: an "edited" model whose weights are the clean ones.
            OutputError: the folder cannot be written.
        """
        missing = [unit for unit in self.units if not self._path(unit).exists()]
        done = len(self.units) - len(missing)
        with tqdm(total=len(self.units), initial=done, unit="unit", disable=not progress) as bar:
            for unit in missing:
                bar.set_description(f"{unit.attack}: {unit.rebinding or 'calibration'}")
                self._measure(unit)
                bar.update()
        found = [self._read(unit) for unit in self.units]
        lines = [
            json.dumps(row, ensure_ascii=False) + "\n" for f in found for row in f.record["rows"]
        ]
        replace_text(self.folder / "rows.jsonl", "".join(lines))
        return found

    def _path(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.name}.json"

    def _read(self, unit: Unit) -> Found:
        record = json.loads(self._path(unit).read_text("utf-8"))
        with np.load(self._path(unit).with_suffix(".npz")) as arrays:
            return Found(unit, record, {name: arrays[name] for name in arrays})

    def _asked(self, unit: Unit) -> tuple[Asked, ...]:
        counts, seed = self.config.counts, self.config.seed
        if unit.rebinding is not None:
            tokenizer, place = self._model.tokenizer, unit.position
            return triggered_and_benign(
                unit.rebinding, tokenizer, n=counts.prompts, seed=seed, position=place
            )
        rebindings = [spec.rebinding(pair) for spec in self.config.attacks for pair in self.pairs]
        whole = calibration(counts.calibration, seed=seed, rebindings=rebindings)
        part = slice(unit.position * CHUNK, (unit.position + 1) * CHUNK)
        return (Asked(whole.cell, whole.jobs[part], whole.phrase[part], whole.expected[part]),)

    @contextmanager
    def _in_force(self, unit: Unit) -> Iterator[dict[str, float | None]]:
        """The unit's attack in force; yields the edit's cost and size."""
        spec = next((s for s in self.config.attacks if s.title == unit.attack), None)
        if spec is None or unit.rebinding is None:
            yield {"seconds": 0.0, "footprint": 0.0}
            return
        with MethodSource(_plain(spec)).edited(self._model, unit.rebinding) as edited:
            if self._model.fingerprint() == self._base:
                raise ModelError(
                    f"expected {unit.attack!r} to change the model for {str(unit.rebinding)!r}, got "
                    "the clean weights; check the attack's options"
                )
            yield {"seconds": edited.seconds, "footprint": edited.footprint}

    def _measure(self, unit: Unit) -> None:
        rows: list[dict[str, Any]] = []
        arrays: dict[str, Array] = {}
        costs: dict[str, dict[str, float]] = {}
        extras: dict[str, Any] = {}
        with self._in_force(unit) as edit:
            for asked in self._asked(unit):
                subject = self._subject(asked.jobs)
                for title, detector in self.detectors.items():
                    seen = detector(subject)
                    arrays[f"{title}/{asked.cell}"] = seen.features.astype(np.float32)
                    costs.setdefault(asked.cell, {})[title] = seen.unet_evaluations
                    costs.setdefault(f"{asked.cell}_seconds", {})[title] = seen.seconds
                rows += self._rows(unit, asked, subject, arrays)
                _keep_maps(asked.cell, subject.recorded, arrays)
                self._keep_pictures(unit, asked.cell, subject.recorded)
                if unit.rebinding is not None:
                    extras |= self._extras(unit, asked, subject)
        record = {"rows": rows, "costs": costs, "edit": edit} | extras
        path = self._path(unit).with_suffix(".npz")
        part = path.with_suffix(".part.npz")
        with writing(path):
            np.savez(part, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no mapping
            part.replace(path)
        replace_json(self._path(unit), record)

    def _subject(self, jobs: Sequence[Job]) -> Subject:
        return Subject(
            self._model,
            jobs,
            sampler=self._sampler,
            clip=self._panel.clip,
            nouns=self._panel.judge.labels,
        )

    def _rows(
        self, unit: Unit, asked: Asked, subject: Subject, arrays: dict[str, Array]
    ) -> list[dict[str, Any]]:
        images = subject.recorded.images
        labels = self._panel.judge.objects(images)
        arrays[f"image/{asked.cell}"] = self._panel.clip.image_features(images).numpy()
        rebinding = unit.rebinding
        return [
            {
                "attack": unit.attack,
                "trigger": rebinding and rebinding.trigger,
                "target": rebinding and rebinding.target,
                "kind": rebinding and rebinding.kind,
                "cell": asked.cell,
                "index": i,
                "prompt": job.prompt,
                "noise": job.seed,
                "phrase": asked.phrase[i],
                "expected": asked.expected[i],
                "label": labels[i],
                "hit": rebinding is not None and labels[i] == rebinding.target_head,
            }
            for i, job in enumerate(asked.jobs)
        ]

    def _extras(self, unit: Unit, asked: Asked, subject: Subject) -> dict[str, Any]:
        """Localisation of the trigger (attacked models only) and what rewording leaves."""
        rebinding, counts = unit.rebinding, self.config.counts
        found: dict[str, Any] = {}
        if rebinding is None or unit.attack == CONTROL:
            return found
        if asked.cell == "triggered" and counts.located:
            located = locate(subject, first=counts.located)
            found["located"] = [
                {
                    "words": list(x.words),
                    "hit": x.hit(rebinding.trigger),
                    "cost": x.unet_evaluations,
                }
                for x in located
            ]
        wanted = rebinding.target_head if asked.cell == "triggered" else rebinding.head
        jobs = asked.jobs[: counts.reworded]
        if not jobs:
            return found
        reworded = [Job(perturb(name, x.prompt), x.seed) for name in PERTURBATIONS for x in jobs]
        drawn = draw(self._model, reworded, sampler=self._sampler)
        labels = self._panel.judge.objects([image for _, image in drawn])
        for i, name in enumerate(PERTURBATIONS):
            own = labels[i * len(jobs) : (i + 1) * len(jobs)]
            found[f"{name}_{asked.cell}"] = [label == wanted for label in own]
        return found

    def _keep_pictures(self, unit: Unit, cell: Cell, recorded: Recorded) -> None:
        if unit.rebinding is None:
            return
        with writing(self.folder / "images"):
            for i, image in enumerate(recorded.images[:SHOWN]):
                image.save(self.folder / "images" / f"{unit.name}.{cell}.{i}.png")


def _plain(spec: AttackSpec) -> AttackSpec:
    return spec.model_copy(update={"label": spec.title})


def _keep_maps(cell: Cell, recorded: Recorded, arrays: dict[str, Array]) -> None:
    """Mean maps of the first prompt, and every prompt's rate of the end token against the rest."""
    length = recorded.lengths[0]
    arrays[f"maps/{cell}"] = recorded.means[0, : length + 1].numpy()
    arrays[f"shape/{cell}"] = np.array(recorded.shape, dtype=np.float64)
    changes = (recorded.maps[:, 1:] - recorded.maps[:, :-1]).norm(dim=3)
    rates = [
        own[:, length - 1] - own[:, 1 : length - 1].mean(dim=1)
        for own, length in zip(changes, recorded.lengths, strict=True)
        if length > 2
    ]
    arrays[f"rates/{cell}"] = np.stack([rate.numpy() for rate in rates])
