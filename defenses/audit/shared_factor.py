"""The shared-factor test: does one multiplier ``M`` explain how every layer changed?

A closed-form edit gives each projection ``W_l' = W_l (I + M)`` with the same M, keys and values
alike; training does not. With a trusted base and ``Δ_l = W_l' - W_l``,

    M̂ = G⁻¹ Σ_l W_lᵀΔ_l,   G = Σ_l W_lᵀW_l,   r² = 1 - Σ‖Δ_l - W_l M̂‖² / Σ‖Δ_l‖².

Both W and Δ are first stripped of their row-constant part (``J = I - 11ᵀ/m``), the multiple of I
in M̂ is taken out of r² (weight decay is no edit), and so is what rounding adds. A change that has
nothing to do with W still gets ``q``: with the rows of each Δ_l turned at random,
``q = Σ_l (h_l/m_l)‖Δ_l‖² / Σ‖Δ_l‖²``, ``h_l = tr(G⁻¹W_lᵀW_l)``; where layers change equally much
that is d/Σm_l. The corrected r² is ``(r² - q)/(1 - q)``.

The matrices are read some rows at a time; beside them only a few d×d sums are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from defenses.audit.cutoffs import CUTOFFS, Cutoffs
from defenses.audit.rounding import rounding
from redediting.editing.kernel import cholesky

_SECTIONS = ("down", "mid", "up")
_ROWS = 128  # read at once
_MARGIN = 1.2  # over the edge, which is one draw of a random maximum
_BETTER = 0.01  # by which a part must fit better than the whole to be preferred
_PERFECT = 0.9999  # from here no part can


@dataclass(frozen=True)
class Fit:
    """How well one multiplier explains a group of matrices.

    Attributes:
        group: ``pooled``, ``key``, ``value``, ``down``, ``mid`` or ``up``.
        names: its changed matrices.
        r2: share of the change's energy that M̂ explains, 0…1, before any correction.
        chance: q, what an unrelated change would get.
        corrected: r² with chance, rounding and the multiple of I taken out; at most 1.
        scale: the multiple of I.
    """

    group: str
    names: tuple[str, ...]
    r2: float
    chance: float
    corrected: float
    scale: float


@dataclass(frozen=True)
class Factor:
    """The multiplier itself.

    Attributes:
        names: matrices that it was fitted to.
        multiplier: M̂, fp64.
        metric: G, fp64; ``‖x‖²_G`` is the size of x as the layers read it.
        spectrum: singular values of ``LᵀM̂`` (``G = LLᵀ``), falling: its size direction by
            direction, as the layers read it.
        edge: largest singular value that the unexplained part of the change would give by itself,
            rows given random signs.
    """

    names: tuple[str, ...]
    multiplier: Float[Tensor, "d d"]
    metric: Float[Tensor, "d d"]
    spectrum: Float[Tensor, " d"]
    edge: float

    @property
    def rank(self) -> int:
        """Directions of M̂ that stand out of the unexplained change."""
        tiny = 1e-6 * float(self.spectrum[0]) if len(self.spectrum) else 0.0
        return int((self.spectrum > max(_MARGIN * self.edge, tiny)).sum())

    def denoised(self) -> Float[Tensor, "d d"]:
        """M̂ restricted to those directions: an edit without the training that came on top."""
        root = cholesky(self.metric)
        left, values, right = torch.linalg.svd(root.T @ self.multiplier)
        k = self.rank
        return torch.linalg.solve_triangular(
            root.T, (left[:, :k] * values[:k]) @ right[:k], upper=True
        )


@dataclass(frozen=True)
class Comparison:
    """A suspect beside its base.

    Attributes:
        footprint: ``‖Δ‖/‖W‖`` over all projections.
        changed: matrices whose change is more than rounding.
        signal: share of the change's energy that rounding does not explain, 0…1.
        fits: one for each group that could be fitted, ``pooled`` first where it could; parts are
            left out where the pooled fit is perfect.
        best: the pooled fit, unless a part of the layers fits clearly better by itself.
        factor: the multiplier of the best fit.
    """

    footprint: float
    changed: tuple[str, ...]
    signal: float
    fits: tuple[Fit, ...]
    best: Fit | None
    factor: Factor | None


def kind_of(name: str) -> str:
    """``key`` or ``value``."""
    return "key" if ".to_k." in name else "value"


def section_of(name: str) -> str:
    """``down``, ``mid`` or ``up``; empty for other names."""
    head = name.split("_")[0]
    return head if head in _SECTIONS else ""


def centred(weight: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """``JW`` in fp64: the same without what is common to all rows."""
    exact = weight.detach().cpu().double()
    return exact - exact.mean(dim=0)


def blocks(
    base: Float[Tensor, "m d"], suspect: Float[Tensor, "m d"]
) -> Iterator[tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]]:
    """Rows of ``JW`` and ``JΔ`` in fp64, some at a time."""
    means = [weight.detach().double().mean(dim=0).cpu() for weight in (base, suspect)]
    rows = zip(base.detach().split(_ROWS), suspect.detach().split(_ROWS), strict=True)
    for trust, found in rows:
        clean = trust.cpu().double() - means[0]
        yield clean, (found.cpu().double() - means[1]).sub_(clean)


def compare(
    base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], *, cutoffs: Cutoffs = CUTOFFS
) -> Comparison:
    """Runs the test on every group of layers.

    Args:
        base: trusted ``W_l`` by name, each of shape ``(m_l, d)``.
        suspect: ``W_l'`` under the same names.
        cutoffs: see `defenses.audit.cutoffs`.
    """
    size = change = 0.0
    floors: dict[str, float] = {}
    rounded = 0.0
    for name, weight in base.items():
        explained = rounding(weight.cpu(), suspect[name].cpu(), slack=cutoffs.rounding)
        total = float((suspect[name].cpu() - weight.cpu()).double().square().sum())
        size += float(weight.double().square().sum())
        change += total
        rounded += min(explained.energy, total)
        if not explained.within:
            floors[name] = min(explained.energy, total)
    fits: list[Fit] = []
    best: Fit | None = None
    factor: Factor | None = None
    for group, names in _groups(list(floors)):
        solved = _fit(group, names, base, suspect, sum(floors[n] for n in names), cutoffs)
        if solved is None:
            continue
        fits.append(solved[0])
        if best is None or solved[0].corrected > best.corrected + _BETTER:
            best, factor = solved
        if best.corrected >= _PERFECT:
            break
    return Comparison(
        footprint=math.sqrt(change / size) if size else 0.0,
        changed=tuple(floors),
        signal=1 - rounded / change if change else 0.0,
        fits=tuple(fits),
        best=best,
        factor=factor,
    )


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
    cutoffs: Cutoffs,
) -> tuple[Fit, Factor] | None:
    """Solves a group, reading its matrices twice: for the sums, then for chance and edge."""
    width = base[names[0]].shape[1]
    if sum(len(base[name]) - 1 for name in names) <= width:
        return None
    gram, cross = torch.zeros(2, width, width, dtype=torch.float64)
    energy = 0.0
    for name in names:
        for clean, delta in blocks(base[name], suspect[name]):
            gram.addmm_(clean.T, clean)
            cross.addmm_(clean.T, delta)
            energy += float(delta.square().sum())
    gram.diagonal().add_(1e-12 * gram.diagonal().mean())
    root = cholesky(gram)
    half = torch.linalg.solve_triangular(root, cross, upper=False)  # LᵀM̂
    multiplier = torch.linalg.solve_triangular(root.T, half, upper=True)
    explained = float(half.square().sum())
    chance, edge = _chance_and_edge(names, base, suspect, root, multiplier, energy)
    if chance > cutoffs.identifiable:
        return None
    scale = float(cross.trace() / gram.trace())
    scaling = scale * float(cross.trace())  # energy of the multiple of I, explained by definition
    floor = min(floor, (energy - explained) / (1 - chance))
    rest = energy - scaling - floor
    shared = explained - scaling - chance * floor
    ratio = shared / rest if rest > 1e-12 * energy else 0.0
    corrected = (ratio - chance) / (1 - chance)
    spectrum = torch.linalg.svdvals(half)
    return (
        Fit(group, tuple(names), explained / energy, chance, corrected, scale),
        Factor(tuple(names), multiplier, gram, spectrum, edge),
    )


def _chance_and_edge(
    names: Iterable[str],
    base: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor],
    root: Tensor,
    multiplier: Tensor,
    energy: float,
) -> tuple[float, float]:
    """``q``, and the largest singular value of ``L⁻¹ Σ W_lᵀ(±)(Δ_l - W_l M̂)``."""
    random = torch.Generator().manual_seed(0)
    noise = torch.zeros_like(root)
    weighted = 0.0
    for name in names:
        leverage = change = 0.0
        for clean, delta in blocks(base[name], suspect[name]):
            half = torch.linalg.solve_triangular(root, clean.T, upper=False)
            leverage += float(half.square_().sum())
            change += float(delta.square().sum())
            delta.addmm_(clean, multiplier, alpha=-1)
            delta *= torch.randint(2, (len(delta), 1), generator=random).double() * 2 - 1
            noise.addmm_(clean.T, delta)
        weighted += leverage / (len(base[name]) - 1) * change
    chance = weighted / energy
    whitened = torch.linalg.solve_triangular(root, noise, upper=False)
    edge = float(torch.linalg.matrix_norm(whitened, 2)) / math.sqrt(max(1 - chance, 1e-12))
    return chance, edge
