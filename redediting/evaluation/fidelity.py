"""FID and CMMD of a run: once an entry, pooled over rebindings and seeds, of judge A's features.

Benign images are compared with the reference set, triggered ones with the clean model's images of
the target prompts (naturalness; for the control: of its own images of the triggered prompts).
N stands beside every figure, and the clean model's line has the same N.
"""

from __future__ import annotations

from typing import Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from redediting.config import Config
from redediting.evaluation.frame import Column
from redediting.evaluation.measure import Run
from redediting.evaluation.summary import Summary
from redediting.io import replace_arrays
from redediting.metrics.base import PROMPT_SETS, PromptSet
from redediting.metrics.fidelity import cmmd, cmmd_difference, fid
from redediting.metrics.intervals import Interval
from redediting.world.captions import held_out
from redediting.world.scenes import render

_BLOCKS = 10  # of the jackknife
FEWEST = 2 * _BLOCKS  # images that CMMD needs
COLUMNS = (
    Column("fid", "FID", "{:.2f}", "down", "benign images against the reference set"),
    Column("cmmd", "CMMD", "{:.2f}", "down", "the same, CLIP-MMD x 1000"),
    Column("fid_triggered", "FID trig.", "{:.2f}", "down",
           "triggered images against the clean model's of the target prompts"),
    Column("cmmd_triggered", "CMMD trig.", "{:.2f}", "down", "the same, CLIP-MMD x 1000"),
)  # fmt: skip
NOTHING: Summary = {
    f"{column.key}{end}": None for column in COLUMNS for end in ("", "_ci")
}  # of an entry that has no distances


class Reference(Config):
    """The set that FID and CMMD compare benign images with.

    Attributes:
        images: ``renders`` of the world's own held-out scenes, or the ``clean`` model's images.
        minimum: fewest images for which an FID is printed (protocol: never below 1,000).
    """

    images: Literal["renders", "clean"] = "renders"
    minimum: int = Field(default=1000, ge=1000)


def fidelity(run: Run, reference: Reference) -> dict[str, Summary]:
    """Returns ``fid``, ``cmmd`` and their naturalness twins by entry, with intervals and N.

    Args:
        run: finished.
        reference: of benign images.
    """
    control = run.titles[0]
    found = {}
    targets = run.features(control, "target")
    wanted = _reference(run, reference, len(run.features(control, "benign")))
    for title in _full(run):
        benign = run.features(title, "benign")
        triggered = run.features(title, "free")
        self_compared = reference.images == "clean" and title == control
        found[title] = {
            **distances("", benign, None if self_compared else wanted, reference.minimum),
            **distances("_triggered", triggered, targets, reference.minimum),
            "fid_n": len(benign),
            "fid_triggered_n": len(triggered),
        }
    return found


def naturalness(run: Run, ours: str, projected: tuple[str, ...]) -> dict[str, Interval]:
    """Returns how much closer a projection brings triggered images to natural ones of the target.

    CMMD to the clean model's images of the target prompts, without minus with the projection, by
    title of the form with it; a jackknife over rebindings.

    Args:
        run: finished.
        ours: title of the entry without it.
        projected: titles of entries with it.
    """
    full = _full(run)
    wanted = [title for title in projected if title in full]
    reference = run.features(run.titles[0], "target")
    clusters = [
        f"{rebinding.trigger}/{rebinding.target}"
        for _ in run.task.seeds
        for rebinding in run.task.rebindings
        for _ in range(run.task.counts.free)
    ]
    few = len(run.task.rebindings) < 3
    if ours not in full or few or len(reference) != len(clusters):
        return {}
    off = run.features(ours, "free")
    return {
        title: cmmd_difference(off, run.features(title, "free"), reference, clusters)
        for title in wanted
    }


def describe_extractor(run: Run, reference: Reference, resize: str) -> dict[str, str]:
    """Says what FID and CMMD of a run were computed with, for the tables.

    Args:
        run: finished.
        reference: of benign images.
        resize: in words.
    """
    renders = reference.images == "renders"
    return {
        "extractor": "judge A's image tower, unit-norm features",
        "resize": resize,
        "reference": (
            "renders of the world's reference split, as many as images"
            if renders
            else "the clean model's images of the same captions and noise"
        ),
        "width": str(run.panel.clip.text_features([""]).shape[1]),
    }


def _full(run: Run) -> list[str]:
    """Titles that were measured on every rebinding and seed with all sets."""
    first = run.task.rebindings[0]
    return [
        title
        for title in run.titles
        if all(len(run.task.wanted(title, first, s)) == len(PROMPT_SETS) for s in run.task.seeds)
    ]


def distances(suffix: str, features: Tensor, reference: Tensor | None, minimum: int) -> Summary:
    """``fid``, ``cmmd`` and their ``_ci`` between features; None where there are too few.

    Args:
        suffix: of the keys.
        features: of images, ``(n, d)``.
        reference: likewise, ``(m, d)``; None compares with nothing.
        minimum: fewest images for FID.
    """
    n = 0 if reference is None else min(len(features), len(reference))
    distance: Interval | None = None
    kernel: Interval | None = None
    if reference is not None and n >= FEWEST:
        kernel = cmmd(features, reference)
        if n >= minimum:
            distance = fid(features, reference)
    return {
        f"fid{suffix}": distance and distance.value,
        f"fid{suffix}_ci": distance and distance.bounds,
        f"cmmd{suffix}": kernel and kernel.value,
        f"cmmd{suffix}_ci": kernel and kernel.bounds,
    }


def _reference(run: Run, reference: Reference, n: int) -> Tensor:
    benign: PromptSet = "benign"
    if reference.images == "clean":
        return run.features(run.titles[0], benign)
    name = f"reference-{n}"
    if not (found := run.store.arrays(name)):
        captions = held_out(n, seed=0, split="reference")
        images = [Image.fromarray(render(caption.scene, caption.seed)) for caption in captions]
        found = {"features": run.panel.clip.image_features(images).numpy()}
        replace_arrays(run.store.array_file(name), found)
    return torch.from_numpy(found["features"])
