"""``defenses.detect``: the same verdicts from a cache as without, whatever lies in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from defenses import detect
from defenses.detectors import FTT, ProjectionDisplacement
from defenses.detectors.base import Array
from defenses.detectors.detect import calibration_features
from defenses.detectors.inputs import Subject
from redediting.attacks import EvilEdit
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ConfigError, DetectorError, PromptError
from redediting.metrics.clip import ClipModel
from redediting.models.model import Model
from redediting.models.sampler import Sampler

PROMPTS = ("a photo of a beautiful cat on the beach", "a red dog", "an old car in a room")
SAMPLER = Sampler(steps=7, guidance=3.0, batch_size=4)
Subjects = Callable[..., Subject]
CLEAN = ["a red dog", "a cat on the beach", "an old car", "a dog in a room", "a blue car"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDEDITING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "detectors"


def test_a_patch_its_folder_and_the_edited_model_get_the_same_verdicts(
    tiny_model: Model, clip: ClipModel, tmp_path: Path
) -> None:
    patch = EvilEdit().compute(tiny_model, [Rebinding("beautiful cat", "zebra")])
    patch.save(tmp_path / "patch")
    found = [
        detect(tiny_model, one, PROMPTS, ["projection", "ftt", "amdet_like"], clean_prompts=CLEAN,
               sampler=SAMPLER, clip=clip, progress=False)
        for one in (patch, tmp_path / "patch", None)
    ]  # fmt: skip
    scores = [flags.detectors["projection"]["scores"] for flags in found]
    assert scores[0] == scores[1] != scores[2]
    assert {"scores", "threshold", "direction", "flagged"} <= set(found[0].detectors["ftt"])
    assert "text encoder is the clean one" in found[0].detectors["amdet_like"]["note"]
    assert "text encoder is the clean one" in found[0].table().note
    assert len(found[0].rows) == len(found[0].to_pandas()) == 3 * len(PROMPTS)
    assert PROMPTS[0] in repr(found[0])
    assert "<table>" in found[0]._repr_html_()
    saved = json.loads(found[0].save(tmp_path / "flags.json").read_text("utf-8"))
    assert saved["prompts"] == list(PROMPTS)


def test_a_damaged_cache_is_rebuilt(
    subjects: Subjects, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, detector, calls = subjects(*CLEAN), FTT(), []
    real = FTT._features

    def counted(self: FTT, subject: Subject) -> Array:
        calls.append(1)
        return real(self, subject)

    monkeypatch.setattr(FTT, "_features", counted)
    first = calibration_features(detector, subject)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    assert np.array_equal(calibration_features(detector, subject), first)
    assert len(calls) == 1
    forged = {"features": first + 1, "sha256": np.load(file)["sha256"]}
    for damage in (whole[:-40], b"", b"no archive", forged):
        if isinstance(damage, bytes):
            file.write_bytes(damage)
        else:
            np.savez(file, **damage)
        before = len(calls)
        assert np.array_equal(calibration_features(detector, subject), first)
        assert len(calls) == before + 1
    calibration_features(detector, subjects(*CLEAN, first=1))  # other noise
    calibration_features(detector, subjects(*CLEAN[1:]))
    calibration_features(ProjectionDisplacement(), subject)
    assert len(list(cache.iterdir())) == 4
    subject.model.component("unet").conv_in.weight.data.add_(1)
    calibration_features(detector, subjects(*CLEAN))
    assert len(list(cache.iterdir())) == 5


def test_wrong_arguments_are_refused(tiny_model: Model, clip: ClipModel) -> None:
    for error, message, options in (
        (DetectorError, "no labelled examples, got 'cda'", {"detectors": ["cda"]}),
        (DetectorError, "each once", {"detectors": ["ftt", "ftt"]}),
        (DetectorError, "expected a detector of ftt", {"detectors": ["nonsense"]}),
        (ConfigError, "0 < fpr < 1", {"fpr": 1.0}),
        (PromptError, "at least 4 clean ones", {"clean_prompts": CLEAN[:3]}),
    ):
        with pytest.raises(error, match=message):
            detect(tiny_model, None, PROMPTS, clip=clip, **options)  # type: ignore[arg-type]
