"""The shared-factor test: does one multiplier ``M`` explain how every layer changed?

A closed-form edit gives each projection ``W_l' = W_l (I + M)`` with the same M, keys and values
alike; training does not. With a trusted base and ``Δ_l = W_l' - W_l``,

    M̂ = G⁻¹ Σ_l W_lᵀΔ_l,   G = Σ_l W_lᵀW_l,   r² = 1 - Σ‖Δ_l - W_l M̂‖² / Σ‖Δ_l‖².

Both W and Δ are first stripped of their row-constant part (``J = I - 11ᵀ/m``), the multiple of I
in M̂ is taken out of r² (weight decay is no edit), and so is what rounding adds. A change that has
nothing to do with W still gets ``q``: with the rows of each Δ_l turned at random,
``q = Σ_l (h_l/m_l)‖Δ_l‖² / Σ‖Δ_l‖²``, ``h_l = tr(G⁻¹W_lᵀW_l)``; where layers change equally much
that is d/Σm_l. The corrected r² is ``(r² - q)/(1 - q)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from defenses.audit.least_squares import Sums, covariance, noise_edge, power, shrunk
from defenses.audit.rounding import ROWS, rounding
from defenses.audit.thresholds import CUTOFFS
from redediting.algebra.kernel import cholesky
from redediting.errors import ModelError

_SECTIONS = ("down", "mid", "up")
_BETTER = 0.01  # by which a part must fit better than the whole to be preferred
_PERFECT = 0.9999  # from here no part can


@dataclass(frozen=True)
class Fit:
    """How well one multiplier explains a group of matrices."""

    group: str  # ``pooled``, ``key``, ``value``, ``down``, ``mid`` or ``up``
    names: tuple[str, ...]  # its changed matrices
    r2: float  # share of the change's energy that M̂ explains, 0…1, before any correction
    chance: float  # q, what an unrelated change would get
    corrected: float  # r² with chance, rounding and the multiple of I taken out; at most 1
    scale: float  # the multiple of I


@dataclass(frozen=True)
class Factor:
    """The multiplier itself."""

    multiplier: Float[Tensor, "d d"]  # M̂, fp64
    metric: Float[Tensor, "d d"]  # G, fp64; ``‖x‖²_G`` is the size of x as the layers read it
    noise: Float[Tensor, "d d"]  # C, fp64: column covariance of what M̂ does not explain
    # singular values of ``LᵀM̂C^(-½)`` (``G = LLᵀ``), falling: its size direction by direction, in
    # units of that noise
    spectrum: Float[Tensor, " d"]

    @property
    def edge(self) -> float:
        """Largest singular value that noise gives by itself."""
        return noise_edge(len(self.metric))

    @property
    def rank(self) -> int:
        """Directions of M̂ that stand out of the noise."""
        return int((self.spectrum > self.edge).sum())

    def denoised(self) -> Float[Tensor, "d d"]:
        """M̂ shrunk for the noise (`shrunk`): an edit without what came on top."""
        root = cholesky(self.metric)
        return shrunk(root.T @ self.multiplier, root, self.noise)[0]


@dataclass(frozen=True)
class Comparison:
    """A suspect beside its base."""

    footprint: float  # ``‖Δ‖/‖W‖`` over all projections
    changed: tuple[str, ...]  # matrices whose change is more than rounding
    signal: float  # share of the change's energy that rounding does not explain, 0…1
    # one for each group that could be fitted, ``pooled`` first where it could; parts are left out
    # where the pooled fit is perfect
    fits: tuple[Fit, ...]
    best: Fit | None  # the pooled fit, unless a part of the layers fits clearly better by itself
    factor: Factor | None  # the multiplier of the best fit


def kind_of(name: str) -> str:
    """``key`` or ``value``."""
    return "key" if ".to_k." in name else "value"


def section_of(name: str) -> str:
    """``down``, ``mid`` or ``up``; empty for other names."""
    head = name.split("_")[0]
    return head if head in _SECTIONS else ""


def compare(base: Mapping[str, Tensor], suspect: Mapping[str, Tensor]) -> Comparison:
    """Runs the test on every group of layers, ``W_l`` and ``W_l'`` by name, each ``(m_l, d)``.

    Raises:
        ModelError: a weight that is not finite.
    """
    size = change = rounded = 0.0
    floors: dict[str, float] = {}
    for name, weight in base.items():
        explained = rounding(weight.cpu(), suspect[name].cpu(), slack=CUTOFFS.rounding)
        whole, total = _energies(weight, suspect[name])
        if not math.isfinite(whole + total):
            raise ModelError(
                f"expected finite numbers, got others in {name}: nothing can be said of it; "
                "fetch the file again, or leave it"
            )
        size += whole
        change += total
        rounded += min(explained.energy, total)
        if not explained.within:
            floors[name] = min(explained.energy, total)
    fits: list[Fit] = []
    best: Fit | None = None
    factor: Factor | None = None
    for group, names in _groups(list(floors)):
        solved = _fit(group, names, base, suspect, sum(floors[n] for n in names))
        if solved is None:
            continue
        fit, shared = solved
        fits.append(fit)
        if best is None or fit.corrected > best.corrected + _BETTER:
            best, factor = fit, shared
        if best.corrected >= _PERFECT:
            break
        del solved, shared  # large, and the next group needs room
    return Comparison(
        footprint=math.sqrt(change / size) if size else 0.0,
        changed=tuple(floors),
        signal=1 - rounded / change if change else 0.0,
        fits=tuple(fits),
        best=best,
        factor=factor,
    )


def _energies(base: Tensor, suspect: Tensor) -> tuple[float, float]:
    """``‖W‖²`` and ``‖Δ‖²``."""
    size = change = 0.0
    for trust, found in zip(base.detach().split(ROWS), suspect.detach().split(ROWS), strict=True):
        clean = trust.cpu().double()
        size += float(clean.square().sum())
        change += float((found.cpu().double() - clean).square().sum())
    return size, change


def _groups(changed: list[str]) -> Iterator[tuple[str, list[str]]]:
    """All changed matrices, then parts of them."""
    if not changed:
        return
    yield "pooled", changed
    for label in (kind_of, section_of):
        values = dict.fromkeys(label(name) for name in changed)
        if len(values) > 1:
            yield from ((v, [name for name in changed if label(name) == v]) for v in values)


def _fit(
    group: str,
    names: list[str],
    base: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor],
    floor: float,
) -> tuple[Fit, Factor] | None:
    """Solves a group, reading its matrices twice: for the sums, then for chance and noise."""
    width = base[names[0]].shape[1]
    if sum(len(base[name]) - 1 for name in names) <= width:
        return None
    sums = Sums.of(base, suspect, names)
    energy, trace = sums.energy, float(sums.cross.trace())
    scale = trace / float(sums.gram.trace())
    scaling = scale * trace  # energy of the multiple of I, explained by definition
    multiplier, explained = sums.solve()
    chance, rest = sums.chance_and_rest(base, suspect, multiplier)
    if chance > CUTOFFS.identifiable:
        return None
    floor = min(floor, (energy - explained) / (1 - chance))
    left = energy - scaling - floor
    shared = explained - scaling - chance * floor
    corrected = (shared / left - chance) / (1 - chance) if left > 1e-12 * energy else 0.0
    noise = covariance(rest, sums.rows - width, energy)
    del rest
    spectrum = torch.linalg.svdvals(sums.root.T @ multiplier @ power(noise, -0.5))
    return (
        Fit(group, tuple(names), explained / energy, chance, corrected, scale),
        Factor(multiplier, sums.gram, noise, spectrum),
    )
