"""How far images moved as sets (FID, CMMD) and one by one (drift), from given features.

Features come from an extractor of the caller's choice, which every table must name together with
N and the reference set: FID at one N cannot be compared with FID at another.

References:
    Heusel et al., "GANs trained by a two time-scale update rule …", 2017 (FID).
    Jayasumana et al., "Rethinking FID: towards a better evaluation metric for image generation",
    2024 (CMMD).

Deviations:
    The CMMD authors' script keeps the diagonal of the kernel matrices (a biased estimate); the
    paper says unbiased, and so is this one: it can be a little below zero.
    Features are divided by their norm here for CMMD, as there; for FID they are taken as given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize
from torchmetrics.image.fid import FrechetInceptionDistance

from redediting.errors import MetricError
from redediting.metrics.intervals import FEWEST, Interval, finite

_SIGMA = 10.0  # the CMMD paper's bandwidth for unit-norm CLIP features
_SCALE = 1000.0  # and its scale


@dataclass(frozen=True)
class FID:
    """A FID with all that it depends on.

    Attributes:
        interval: value, 95 % interval, and n: images that were compared.
        extractor: of the features: package, network, digest of its weights.
        resize: before it, in words.
        reference: likewise.
        reference_n: its images.
    """

    interval: Interval
    extractor: str
    resize: str
    reference: str
    reference_n: int

    def row(self) -> dict[str, Any]:
        """The figures of a table or a file."""
        said = {name: getattr(self, name) for name in _SETTING}
        return {
            "fid": self.interval.value, "fid_ci": self.interval.bounds, "n": self.interval.n,
            **said,
        }  # fmt: skip

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> FID:
        """The figures of a `row` again."""
        low, high = row["fid_ci"]
        interval = Interval(row["fid"], low, high, row["n"], kind="jackknife")
        return cls(interval, *(row[name] for name in _SETTING))


_SETTING = ("extractor", "resize", "reference", "reference_n")
_CALLED = {"n": "N", "reference_n": "reference N"}


def comparable(one: FID, other: FID) -> None:
    """Refuses two FIDs that may not stand side by side.

    Raises:
        MetricError: another N (FID falls with N), extractor, resize or reference; both are named.
    """
    for what in ("n", *_SETTING):
        a, b = one.row()[what], other.row()[what]
        if a != b:
            raise MetricError(
                f"expected FIDs of one {_CALLED.get(what, what)}, got {a!r} and "
                f"{b!r}; compute both anew on as many images, in one way"
            )


def fid(features: Tensor, reference: Tensor, *, blocks: int = 10) -> Interval:
    """The Fréchet distance between Gaussians fitted to features (n, d) and (m, d).

        ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½)

    The interval is a jackknife's (Student t) over consecutive blocks, 2…min(n, m)/2 of them, and
    holds for the FID *at this N*, whose bias it does not remove. Order images by prompt, so that
    what belongs together is left out together.

    Raises:
        ValueError: shapes that do not fit, too few samples, or features that are not finite.
    """
    _check(features, reference, blocks)

    def distance(kept: NDArray[np.bool_]) -> float:
        extractor: Any = nn.Identity()  # features are given
        extractor.num_features = features.shape[1]
        # without sync: under accelerate every process already holds all features
        metric = FrechetInceptionDistance(extractor, sync_on_compute=False)
        for side, real in ((reference, True), (features, False)):
            parts = torch.tensor_split(side, len(kept))
            metric.update(torch.cat([parts[i] for i in np.flatnonzero(kept)]), real=real)
        return float(metric.compute())

    return _jackknife(distance, blocks, len(features))


def cmmd(features: Tensor, reference: Tensor, *, blocks: int = 10) -> Interval:
    """CMMD of CLIP features (n, d), (m, d): 1000 × the unbiased squared MMD, unit norm, σ = 10.

    The interval is a block jackknife's, as in `fid`. Where both sets come from one distribution
    the estimate is degenerate and the interval only indicative.
    """
    _check(features, reference, blocks)
    x, y = (normalize(side.double(), dim=1) for side in (features, reference))
    sums = _kernel_sums(x, y, _SIGMA, blocks)
    return _jackknife(lambda kept: _SCALE * _mmd2(*sums, kept), blocks, len(x))


def cmmd_difference(
    one: Tensor, other: Tensor, reference: Tensor, clusters: Sequence[Hashable]
) -> Interval:
    """CMMD(one) − CMMD(other) against one reference, with a jackknife over clusters (pairs).

    All three are features (n, d) of the same prompts in the same order; three clusters at least.
    """
    labels = list(dict.fromkeys(clusters))
    if not len(one) == len(other) == len(reference) == len(clusters) or len(labels) < 3:
        raise ValueError(
            f"expected as many features as clusters and at least 3 of these, got {len(one)}, "
            f"{len(other)}, {len(reference)} and {len(clusters)} with {len(labels)} labels"
        )
    sides = [normalize(side.double(), dim=1) for side in (one, other, reference)]
    codes = np.array([labels.index(label) for label in clusters])

    def difference(kept: NDArray[np.bool_]) -> float:
        rows = torch.from_numpy(kept[codes])
        x, y, truth = (side[rows] for side in sides)
        return _SCALE * (mmd2(x, truth, sigma=_SIGMA) - mmd2(y, truth, sigma=_SIGMA))

    found = _jackknife(difference, len(labels), len(one))
    few = len(labels) < FEWEST
    ends = (math.nan, math.nan) if few else (found.low, found.high)
    return Interval(found.value, *ends, len(one), len(labels), "" if few else "jackknife")


def mmd2(x: Tensor, y: Tensor, *, sigma: float) -> float:
    """The unbiased squared maximum mean discrepancy of samples (n, d) and (m, d), n, m >= 2.

    Σ_{i≠j} k(xᵢ,xⱼ)/n(n−1) + Σ_{i≠j} k(yᵢ,yⱼ)/m(m−1) − 2 Σ_{ij} k(xᵢ,yⱼ)/nm,
    k(a, b) = exp(−‖a−b‖²/2σ²)
    """
    _check(x, y, 1)
    sums = _kernel_sums(x.double(), y.double(), sigma, 1)
    return _mmd2(*sums, np.ones(1, dtype=bool))


def drift(features: Tensor, clean: Tensor) -> Tensor:
    """1 − cosine of features (n, d) to the clean model's, same prompts and noise, (n,) in 0…2.

    Raises:
        ValueError: shapes differ, or features that are not finite.
    """
    if features.ndim != 2 or features.shape != clean.shape:
        raise ValueError(
            f"expected features of one shape (n, d), got {tuple(features.shape)} "
            f"and {tuple(clean.shape)}"
        )
    finite(torch.cat([features, clean]).numpy(force=True))
    return 1 - cosine_similarity(features.double(), clean.double(), dim=1)


_Sums = tuple[NDArray[np.float64], NDArray[np.int64]]


def _kernel_sums(x: Tensor, y: Tensor, sigma: float, blocks: int) -> tuple[_Sums, _Sums, _Sums]:
    """Sums of k − 1 between every two blocks; the ones cancel, and so does their rounding."""

    def sums(a: Tensor, b: Tensor) -> _Sums:
        total = np.zeros((blocks, blocks))
        count = np.zeros((blocks, blocks), dtype=np.int64)
        for i, rows in enumerate(torch.tensor_split(a, blocks)):
            for j, columns in enumerate(torch.tensor_split(b, blocks)):
                squares = torch.cdist(rows, columns).square()
                total[i, j] = float(torch.expm1(squares / (-2 * sigma**2)).sum())
                count[i, j] = len(rows) * len(columns)
        return total, count

    return sums(x, x), sums(y, y), sums(x, y)


def _mmd2(xx: _Sums, yy: _Sums, xy: _Sums, kept: NDArray[np.bool_]) -> float:
    def mean(sums: _Sums, *, within: bool) -> float:
        total, count = (part[np.ix_(kept, kept)].sum() for part in sums)
        diagonal = round(float(count) ** 0.5) if within else 0  # k − 1 = 0 there
        return float(total / (count - diagonal))

    return mean(xx, within=True) + mean(yy, within=True) - 2 * mean(xy, within=False)


def _jackknife(estimate: Callable[[NDArray[np.bool_]], float], blocks: int, n: int) -> Interval:
    if blocks < 2:
        raise ValueError(f"expected at least 2 blocks for an interval, got {blocks}")
    value = estimate(np.ones(blocks, dtype=bool))
    left_out = np.array([estimate(np.arange(blocks) != block) for block in range(blocks)])
    error = float(np.sqrt((blocks - 1) / blocks * np.square(left_out - left_out.mean()).sum()))
    half = float(stats.t.ppf(0.975, blocks - 1)) * error
    return Interval(value, value - half, value + half, n, kind="jackknife")


def _check(features: Tensor, reference: Tensor, blocks: int) -> None:
    shapes = f"{tuple(features.shape)} and {tuple(reference.shape)}"
    if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
        raise ValueError(f"expected features (n, d) and (m, d), got {shapes}")
    if min(len(features), len(reference)) < 2 * blocks:
        raise ValueError(f"expected at least 2 samples a block, got {shapes} for {blocks} blocks")
    finite(torch.cat([features, reference]).numpy(force=True))
