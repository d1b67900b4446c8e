"""``defenses.detect``: prompts put to a suspect model, examined by detectors.

Thresholds come from clean prompts on the clean model. What a detector sees of these is kept in
``$REDEDITING_CACHE``, else in the platform's cache folder, under a name that covers the model,
the sampler, the prompts, and the detector's options and sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from defenses.detectors import DETECTORS
from defenses.detectors.base import Array, Detector, check_finite
from defenses.detectors.inputs import Subject, known_nouns
from redediting.concepts.lexicon import load_lexicon
from redediting.errors import ConfigError, DetectorError, OutputError, PromptError
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.sources import source_digest
from redediting.generation import Job
from redediting.io import cache_folder, digest, fingerprint, replace_arrays, replace_json
from redediting.metrics.clip import ClipModel
from redediting.metrics.roc import threshold
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.patch.patch import Patch
from redediting.suspects import open_suspect
from redediting.world.captions import held_out
from redediting.world.judges import load_judge_a

if TYPE_CHECKING:
    import pandas as pd

CALIBRATION = 200  # clean prompts for thresholds
Row = dict[str, Any]


@dataclass(frozen=True)
class Flags:
    """What detectors say of prompts.

    Attributes:
        prompts: as given.
        detectors: by name ``scores``, ``threshold``, ``direction``, ``flagged``; ``fpr`` is the
            share of the ``calibration`` clean prompts that the threshold flags,
            ``unet_evaluations`` and ``seconds`` are costs a prompt, ``note`` is what to know.
    """

    prompts: tuple[str, ...]
    detectors: Mapping[str, Row]

    @property
    def rows(self) -> list[Row]:
        """One row a prompt and detector."""
        return [
            {"prompt": prompt, "detector": name, "score": entry["scores"][i],
             "threshold": entry["threshold"], "direction": entry["direction"],
             "flagged": entry["flagged"][i]}
            for i, prompt in enumerate(self.prompts)
            for name, entry in self.detectors.items()
        ]  # fmt: skip

    def table(self) -> Frame:
        """One line a prompt, one column a detector; flagged scores with ●."""
        lines = [
            {"prompt": prompt} | {
                name: f"{entry['scores'][i]:.3g}{' ●' if entry['flagged'][i] else ''}"
                for name, entry in self.detectors.items()
            }
            for i, prompt in enumerate(self.prompts)
        ]  # fmt: skip
        sides = {"high": ">", "low": "<"}
        notes = [
            f"{name}: flagged where score {sides[entry['direction']]} {entry['threshold']:.4g}, "
            f"which flags {entry['fpr']:.1%} of {entry['calibration']} clean prompts; "
            f"{entry['unet_evaluations']:.0f} UNet evaluations a prompt"
            f"{'; ' + entry['note'] if 'note' in entry else ''}"
            for name, entry in self.detectors.items()
        ]
        columns = (Column("prompt", "prompt"), *(Column(name, name) for name in self.detectors))
        return Frame(columns, tuple(lines), title="scores; flagged ones with ●",
                     note="\n".join(notes))  # fmt: skip

    def to_pandas(self) -> pd.DataFrame:
        """One line a prompt and detector."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def save(self, path: str | Path) -> Path:
        """Writes prompts and verdicts as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        replace_json(Path(path), {"prompts": self.prompts, "detectors": self.detectors})
        return Path(path)

    def __repr__(self) -> str:
        """The table."""
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().to_html()


def detect(
    model: Model,
    patch: Patch | Model | str | Path | None,
    prompts: str | Sequence[str],
    detectors: str | Sequence[str | Detector] = ("clip", "daa_s"),
    *,
    fpr: float = 0.05,
    clean_prompts: Sequence[str] | None = None,
    sampler: Sampler | None = None,
    clip: ClipModel | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Flags:
    """Scores prompts on a suspect model and says which look backdoored.

    Detectors that learn from clean prompts learn from the first half of them and take the
    threshold from the second.

    Args:
        model: the clean model, on which thresholds are set.
        patch: a patch; a model under suspicion; the path of either, of weights or of a LoRA; None
            examines the model itself.
        prompts: one or several.
        detectors: names, paths of files, or objects.
        fpr: share of clean prompts that may be flagged, 0 < fpr < 1.
        clean_prompts: for thresholds, at least 4; 200 held-out captions when not given.
        sampler: how images are drawn; the model's own when not given.
        clip: looks at images; the world's judge A when not given.
        seed: of the first image; the next ones follow.
        progress: whether to show a bar.

    Raises:
        DetectorError: an unknown detector, one that needs labelled examples, or a score that is
            not finite.
        ConfigError: ``fpr`` or ``seed`` out of range.
        PromptError: no prompts, or fewer than 4 clean ones.

    Example:
        >>> import redediting as rd
        >>> from defenses import detect
        >>> model = rd.load("world")
        >>> patch = rd.attacks.EvilEdit().compute(model, [rd.Rebinding("beautiful cat", "zebra")])
        >>> flags = detect(model, patch, "a photo of a beautiful cat", ["projection"],
        ...                clean_prompts=["a red dog", "a cat", "a car", "a tree"], progress=False)
        >>> flags.rows[0]["detector"], flags.rows[0]["flagged"] in (True, False)
        ('projection', True)
    """
    wanted = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if clean_prompts is None:
        clean_prompts = [c.text for c in held_out(CALIBRATION, seed=1, split="test")]
    if not 0 < fpr < 1 or seed < 0:
        raise ConfigError(f"expected 0 < fpr < 1 and seed >= 0, got {fpr} and {seed}; change them")
    if not wanted or len(clean_prompts) < 4:
        raise PromptError(
            f"expected a prompt and at least 4 clean ones, got {len(wanted)} and "
            f"{len(clean_prompts)}; add some"
        )
    made = _make(detectors)
    nouns = tuple(load_lexicon().concepts) if model.name == "world" else known_nouns()
    looks, used = clip or load_judge_a(), sampler or model.sampler

    def subject(examined: Model, texts: Sequence[str]) -> Subject:
        jobs = [Job(text, seed + i) for i, text in enumerate(texts)]
        return Subject(examined, jobs, sampler=used, clip=looks, nouns=nouns, trusted=model)

    suspect = model if patch is None else open_suspect(patch, model)
    clean, found = subject(model, clean_prompts), {}
    bar = tqdm(made, unit="detector", disable=not progress)
    calibrated = [calibration_features(detector, clean) for detector in bar]
    examined = subject(suspect, wanted)
    encoders = [fingerprint(m.text_encoder.state_dict()) for m in (model, suspect)]
    for detector, features in zip(made, calibrated, strict=True):
        found[detector.name] = _flags(detector, features, clean.prompts, examined, fpr)
        if detector.encoder_only and encoders[0] == encoders[1]:
            found[detector.name]["note"] = "the suspect's text encoder is the clean one: not seen"
    return Flags(wanted, found)


def calibration_features(detector: Detector, clean: Subject) -> Array:
    """A detector's features of clean prompts, shape ``(n, k)``, from the cache if it has them.

    A damaged file is not believed, and an object whose source cannot be read is never cached.
    """
    file = _cache_file(detector, clean)
    if file is None:
        return detector(clean).features
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(io.BytesIO(file.read_bytes())) as kept:
            features, check = kept["features"], str(kept["sha256"])
        if len(features) == len(clean.jobs) and check == _sha256(features):
            return np.asarray(features, dtype=np.float64)
    features = detector(clean).features
    with contextlib.suppress(OSError, OutputError):  # a cache that cannot be written is no fault
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_arrays(file, {"features": features, "sha256": np.array(_sha256(features))})
    return features


def _cache_file(detector: Detector, clean: Subject) -> Path | None:
    """Where the features lie; its name covers everything that decides them."""
    if not Path(type(detector)._features.__code__.co_filename).is_file():
        return None
    named = digest(
        clean.model.fingerprint(), str(clean.model.device.type), clean.sampler.model_dump_json(),
        fingerprint(clean.clip.model.state_dict()), *clean.nouns,
        detector.name, detector.model_dump_json(),
        source_digest([detector, "defenses.detectors.base"]),
        *(f"{job.seed} {job.prompt}" for job in clean.jobs),
    )  # fmt: skip
    return cache_folder() / "detectors" / f"{detector.name}-{named}.npz"


def _sha256(features: Array) -> str:
    head = f"{features.shape} {features.dtype} ".encode()
    return hashlib.sha256(head + features.tobytes()).hexdigest()


def _make(detectors: str | Sequence[str | Detector]) -> list[Detector]:
    given = [detectors] if isinstance(detectors, str | Detector) else list(detectors)
    made = [one if isinstance(one, Detector) else DETECTORS.make(one) for one in given]
    names = [detector.name for detector in made]
    if not made or len(set(names)) < len(names):
        raise DetectorError(
            f"expected detectors, each once, got {names}; choose from {', '.join(DETECTORS)}"
        )
    labelled = [detector.name for detector in made if detector.learns == "labelled"]
    if labelled:
        raise DetectorError(
            f"expected detectors that need no labelled examples, got {labelled[0]!r}; "
            "it is measured, with each attack seen and left out, by experiments.detection"
        )
    return made


def _flags(
    detector: Detector, clean: Array, prompts: Sequence[str], subject: Subject, fpr: float
) -> Row:
    half = math.ceil(len(clean) / 2) if detector.learns != "nothing" else 0
    scorer = detector.learn(clean[:half])
    held = scorer(clean[half:])
    check_finite(detector.name, held, prompts[half:])
    limit = threshold(held, detector.direction, fpr)
    seen = detector(subject)
    scores = scorer(seen.features)
    check_finite(detector.name, scores, subject.prompts)
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
