"""FID and CMMD of a run: once a method, pooled over pairs and seeds, from judge A's features.

Benign images are compared with the reference set, triggered ones with the clean model's images of
the target prompts (naturalness; for the control: of its own images of the triggered prompts).
N stands beside every figure, and the clean model's line has the same N.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.engine.folder import writing
from experiments.engine.runner import Run
from experiments.judges import Panel
from experiments.rows import SETS, Set, Unit
from experiments.summary import Summary
from redediting.metrics.fidelity import cmmd, cmmd_difference, fid
from redediting.metrics.intervals import Interval
from redediting.world.captions import held_out
from redediting.world.scenes import render

_BLOCKS = 10  # of the jackknife


def fidelity(run: Run, panel: Panel) -> dict[str, Summary]:
    """Returns ``fid``, ``cmmd`` and their naturalness twins by method, with intervals and N.

    Args:
        run: finished.
        panel: whose features the run has.
    """
    control = run.titles[0]
    found = {}
    targets = _features(run, control, "target")
    reference = _reference(run, panel, len(_features(run, control, "benign")))
    for title in _full(run):
        benign = _features(run, title, "benign")
        triggered = _features(run, title, "free")
        self_compared = run.config.reference.images == "clean" and title == control
        found[title] = {
            **_pair("", benign, None if self_compared else reference, run),
            **_pair("_triggered", triggered, targets, run),
            "fid_n": len(benign),
            "fid_triggered_n": len(triggered),
        }
    return found


def naturalness(run: Run) -> dict[str, Interval]:
    """Returns how much closer a projection brings triggered images to natural ones of the target.

    CMMD to the clean model's images of the target prompts, without minus with the projection, by
    title of the form with it; a jackknife over pairs.

    Args:
        run: finished.
    """
    spec, full = run.config.claims, _full(run)
    wanted = [title for title in (spec.posthoc, spec.inside) if title in full]
    reference = _features(run, run.titles[0], "target")
    clusters = [
        f"{pair.trigger}/{pair.target}"
        for _ in run.config.seeds
        for pair in run.pairs
        for _ in range(run.config.counts.free)
    ]
    if spec.ours not in full or len(run.pairs) < 3 or len(reference) != len(clusters):
        return {}
    off = _features(run, spec.ours, "free")
    return {
        title: cmmd_difference(off, _features(run, title, "free"), reference, clusters)
        for title in wanted
    }


NOTHING: Summary = {
    f"{name}{suffix}{end}": None
    for name in ("fid", "cmmd")
    for suffix in ("", "_triggered")
    for end in ("", "_ci")
}  # of a method that has no distances


def _full(run: Run) -> list[str]:
    """Titles that were measured on every pair and seed with all sets."""
    return [
        title
        for title in run.titles
        if all(len(run.config.sets(title, run.pairs[0], s)) == len(SETS) for s in run.config.seeds)
    ]


def describe_extractor(run: Run, panel: Panel) -> dict[str, str]:
    """Says what FID and CMMD of a run were computed with, for the tables."""
    renders = run.config.reference.images == "renders"
    return {
        "extractor": "judge A's image tower, unit-norm features",
        "resize": (
            "none, the model's own size is the extractor's"
            if run.config.judges is None
            else f"the image transform of {run.config.judges.scores.model}"
        ),
        "reference": (
            "renders of the world's reference split, as many as images"
            if renders
            else "the clean model's images of the same captions and noise"
        ),
        "width": str(panel.clip.text_features([""]).shape[1]),
    }


def _pair(suffix: str, features: Tensor, reference: Tensor | None, run: Run) -> Summary:
    n = 0 if reference is None else min(len(features), len(reference))
    distance: Interval | None = None
    kernel: Interval | None = None
    if reference is not None and n >= 2 * _BLOCKS:
        kernel = cmmd(features, reference)
        if n >= run.config.reference.minimum:
            distance = fid(features, reference)
    return {
        f"fid{suffix}": distance and distance.value,
        f"fid{suffix}_ci": distance and distance.bounds,
        f"cmmd{suffix}": kernel and kernel.value,
        f"cmmd{suffix}_ci": kernel and kernel.bounds,
    }


def _features(run: Run, title: str, name: Set) -> Tensor:
    """Features of one set of a method, in the order of the units."""
    kept = []
    for seed in run.config.seeds:
        for pair in run.pairs:
            unit = Unit(title, pair.trigger, pair.target, pair.kind, seed)
            with np.load(run.features(unit)) as arrays:
                if name in arrays:
                    kept.append(torch.from_numpy(arrays[name]))
    return torch.cat(kept) if kept else torch.zeros(0, 1)


def _reference(run: Run, panel: Panel, n: int) -> Tensor:
    if run.config.reference.images == "clean":
        return _features(run, run.titles[0], "benign")
    path = run.folder / "features" / f"reference-{n}.npz"
    if not path.exists():
        features = panel.clip.image_features(_renders(n))
        part = path.with_suffix(".part.npz")
        with writing(path):
            np.savez(part, features=features.numpy())
            part.replace(path)
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["features"])


def _renders(n: int) -> Sequence[Image.Image]:
    captions = held_out(n, seed=0, split="reference")
    return [Image.fromarray(render(caption.scene, caption.seed)) for caption in captions]
