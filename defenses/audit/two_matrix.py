"""The two-matrix fit: layers that share two multipliers, each in its own proportion.

Targets scaled by layer, ``V* = ρ_l W_l C*``, give ``Δ_l = W_l (ρ_l M* - M₀)``. One multiplier no
longer fits, two do: ``Δ_l ≈ W_l (a_l M₁ + b_l M₂ + c_l I)``. Only the span of M₁ and M₂ can be
known. The multiples of I are weight decay, explained beforehand and taken out of r².

Fitted by alternating least squares on the leading right directions V of all changes
(``Σ Δ_lᵀΔ_l ≈ V·Vᵀ``), so that d×k unknowns replace d×d; M₁V and M₂V by conjugate gradients
with G as preconditioner, so that no layer's Gram matrix is ever kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from defenses.audit.least_squares import blocks, factored, mean_row, rows
from defenses.audit.rounding import ROWS

_DIRECTIONS = 16  # k, right directions of the changes that are kept
_STEPS, _INNER = 8, 12  # of alternation, of conjugate gradients; both stop early


def fit_two(
    base: Mapping[str, Tensor],
    suspect: Mapping[str, Tensor],
    names: Sequence[str],
) -> float | None:
    """Corrected r² of two multipliers for the named layers; None where there are too few to tell.

    Chance and the layers' multiples of I are taken out; at most 1.
    """
    if len(names) < 4:
        return None
    width = base[names[0]].shape[1]
    freedom = sum(len(base[name]) - 1 for name in names)
    gram = torch.zeros(width, width, dtype=torch.float64)
    outer = torch.zeros_like(gram)
    for name in names:
        for clean, delta in blocks(base[name], suspect[name]):
            gram.addmm_(clean.T, clean)
            outer.addmm_(delta.T, delta)
    basis = torch.linalg.eigh(outer).eigenvectors[:, -min(_DIRECTIONS, width) :]
    pulled = [
        torch.cat([delta @ basis for _, delta in blocks(base[n], suspect[n])]) for n in names
    ]
    problem = _Problem(base, names, factored(gram), basis, pulled)
    energy = sum(float(y.square().sum()) for y in pulled)
    trivial = problem.explained(torch.zeros(0, *basis.shape, dtype=torch.float64))[0]
    if energy - trivial <= 1e-12 * energy:
        return None
    chance = min(2 * width / freedom, 1.0)
    if chance >= 0.9:
        return None
    ratio = (problem.solve() - trivial) / (energy - trivial)
    return (ratio - chance) / (1 - chance)


class _Problem:
    """``min Σ_l ‖Y_l - W_l (a_l N₁ + b_l N₂ + c_l V)‖²`` over N₁, N₂ (d×k) and the scalars."""

    def __init__(
        self,
        base: Mapping[str, Tensor],
        names: Sequence[str],
        root: Tensor,
        basis: Tensor,
        pulled: Sequence[Tensor],
    ) -> None:
        self.base, self.names, self.root = base, names, root
        self.basis, self.pulled = basis, pulled
        self.means = {name: mean_row(base[name]) for name in names}

    def _rows(self, name: str) -> Iterator[Tensor]:
        return rows(self.base[name], self.means[name])

    def _times(self, name: str, right: Tensor) -> Tensor:
        """``J W_l N``: some rows of W_l at a time, as in all that reads it."""
        return torch.cat([block @ right for block in self._rows(name)])

    def _pull(self, name: str, left: Tensor) -> Tensor:
        """``W_lᵀ J Y``."""
        found = torch.zeros_like(self.basis)
        for block, part in zip(self._rows(name), left.split(ROWS), strict=True):
            found.addmm_(block.T, part)
        return found

    def solve(self) -> float:
        """Energy explained; alternates until it stands still."""
        proportions = self._start()
        matrices = torch.zeros(2, *self.basis.shape, dtype=torch.float64)
        total = 0.0
        for _ in range(_STEPS):
            matrices = self._matrices(proportions, matrices)
            before = total
            total, proportions = self.explained(matrices)
            if total - before < 1e-9 * total:
                break
        return total

    def explained(self, matrices: Tensor) -> tuple[float, Tensor]:
        """Energy explained by the best scalars of each layer, and these: ``(layers, t + 1)``."""
        total, found = 0.0, []
        for name, y in zip(self.names, self.pulled, strict=True):
            made = self._times(name, torch.cat([*matrices, self.basis], dim=1))
            parts = torch.stack([part.flatten() for part in made.split(y.shape[1], dim=1)])
            answer = torch.linalg.lstsq(parts.T, y.reshape(-1, 1), driver="gelsd").solution
            total += float((parts.T @ answer).square().sum())
            found.append(answer[:, 0])
        return total, torch.stack(found)

    def _start(self) -> Tensor:
        """All layers alike, and the leading way in which they then still differ."""
        pull = torch.zeros_like(self.basis)
        for name, y in zip(self.names, self.pulled, strict=True):
            pull += self._pull(name, y)
        shared = torch.cholesky_solve(pull, self.root)
        left = []
        for name, y in zip(self.names, self.pulled, strict=True):
            rest = self._pull(name, y - self._times(name, shared))
            left.append((torch.cholesky_solve(rest, self.root)).flatten())
        differ = torch.linalg.svd(torch.stack(left), full_matrices=False).U[:, 0]
        ones = torch.ones(len(self.names), dtype=torch.float64)
        return torch.stack([ones, differ * len(differ) ** 0.5, 0 * ones], dim=1)

    def _matrices(self, proportions: Tensor, start: Tensor) -> Tensor:
        """Preconditioned conjugate gradients on the normal equations for N₁ and N₂."""
        _, axes = torch.linalg.qr(proportions[:, :2])
        right = torch.zeros_like(start)
        for row, name, y in zip(proportions, self.names, self.pulled, strict=True):
            pull = self._pull(name, y - row[2] * self._times(name, self.basis))
            right += row[:2, None, None] * pull
        value = start.clone()
        rest = right - self._normal(value, proportions)
        ready = self._precondition(rest, axes)
        direction, product = ready, float((rest * ready).sum())
        first = product
        for _ in range(_INNER):
            if product <= 1e-20 * max(first, 1e-300):
                break
            image = self._normal(direction, proportions)
            length = product / float((direction * image).sum())
            value = value + length * direction
            rest = rest - length * image
            ready = self._precondition(rest, axes)
            after = float((rest * ready).sum())
            direction, product = ready + (after / product) * direction, after
        return value

    def _normal(self, value: Tensor, proportions: Tensor) -> Tensor:
        image = torch.zeros_like(value)
        for row, name in zip(proportions, self.names, strict=True):
            mixed = row[0] * value[0] + row[1] * value[1]
            answer = torch.zeros_like(mixed)
            for block in self._rows(name):
                answer.addmm_(block.T, block @ mixed)
            image += row[:2, None, None] * answer
        return image

    def _precondition(self, rest: Tensor, axes: Tensor) -> Tensor:
        """As if every layer had the same share of G: ``(AᵀA ⊗ G)⁻¹``, A the proportions."""
        inner = axes.T @ axes
        mixed = torch.linalg.solve(inner, rest.flatten(1)).reshape(rest.shape)
        return torch.stack([torch.cholesky_solve(part, self.root) for part in mixed])
