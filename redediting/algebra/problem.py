"""The editing problem: which columns move, which stay, and at what price.

``min_Δ Σᵢ sᵢ‖(W+Δ)cᵢ - ρW c*ᵢ‖² + η Σⱼ wⱼ‖Δrⱼ‖² + λ tr(ΔΛΔᵀ)   s.t.  ΔZ = 0``,
then ``Δ ← Δ(I - UUᵀ)`` where a post-hoc projection is asked for, and ``Δ ← Δ + 1aᵀ`` where a row
shift is. The scale ρ of a layer's targets is 1 unless `redediting.algebra.layers` sets another.

References:
    TIME (Orgad et al., ICCV 2023), UCE (Gandikota et al., WACV 2024) and EvilEdit (Wang et al.,
    ACM MM 2024) are special cases; REDEditing (arXiv 2504.14554) motivates the hard constraint.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from redediting.algebra.kernel import free_basis, within

_SHAPES = {
    "keys": "dn", "targets": "dn", "weights": "n", "retain": "dN", "retain_weights": "N",
    "hard": "dk", "penalty": "dd", "removed": "du", "content": "n", "shift": "d",
}  # fmt: skip


@dataclass(frozen=True)
class EditProblem:
    """All that the shared multiplier depends on; fp64, columns are token states."""

    keys: Float[Tensor, "d n"]  # ``C``, states to edit
    targets: Float[Tensor, "d n"]  # ``C*``, states whose keys and values they shall read
    weights: Float[Tensor, " n"]  # ``s``, nonnegative
    retain: Float[Tensor, "d N"]  # ``R``, states that should not move
    retain_weights: Float[Tensor, " N"]  # ``w``, nonnegative
    hard: Float[Tensor, "d k"]  # ``Z``, directions that must not move at all; any columns
    penalty: Float[Tensor, "d d"] | None  # ``Λ``, positive definite; None is the identity
    ridge: float  # ``λ > 0``
    retain_strength: float  # ``η >= 0``
    removed: Float[Tensor, "d u"] | None = None  # ``U``, orthonormal, projected out of Δ
    content: Bool[Tensor, " n"] | None = None  # where ρ is measured; None is all
    shift: Float[Tensor, " d"] | None = None  # ``a``, added to every row of every matrix

    @classmethod
    def build(
        cls,
        keys: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        retain: Tensor | None = None,
        retain_weights: Tensor | None = None,
        hard: Tensor | None = None,
        penalty: Tensor | None = None,
        ridge: float = 1.0,
        retain_strength: float = 1.0,
        removed: Tensor | None = None,
        content: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> EditProblem:
        """Fills the defaults (unit weights, nothing retained), casts to fp64 and checks.

        Raises:
            ValueError: shapes that do not fit, negative weights or a ridge that is not positive.
        """
        nothing = torch.zeros(len(keys), 0)
        retain = nothing if retain is None else retain
        given = {
            "keys": keys,
            "targets": targets,
            "weights": torch.ones(keys.shape[1]) if weights is None else weights,
            "retain": retain,
            "retain_weights": (
                torch.ones(retain.shape[1]) if retain_weights is None else retain_weights
            ),
            "hard": nothing if hard is None else hard,
            "penalty": penalty,
            "removed": removed,
            "shift": shift,
        }
        found = {name: t.detach().cpu().double() for name, t in given.items() if t is not None}
        if content is not None:
            found["content"] = content.detach().cpu().bool()
        _check_shapes(found)
        return cls(
            penalty=found.pop("penalty", None),
            ridge=float(ridge),
            retain_strength=float(retain_strength),
            **found,
        )

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        for name in ("weights", "retain_weights"):
            if bool((getattr(self, name) < 0).any()):
                raise ValueError(f"expected {name} >= 0, got {getattr(self, name).min():g}")
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise ValueError(f"expected ridge > 0, got {self.ridge:g}")
        if not (math.isfinite(self.retain_strength) and self.retain_strength >= 0):
            raise ValueError(f"expected retain_strength >= 0, got {self.retain_strength:g}")
        if self.removed is not None:
            eye = torch.eye(self.removed.shape[1], dtype=self.removed.dtype)
            if not torch.allclose(self.removed.T @ self.removed, eye, atol=1e-8):
                raise ValueError("expected removed to have orthonormal columns; take those of QR")

    @property
    def width(self) -> int:
        """``d``, width of a token state."""
        return self.keys.shape[0]

    @property
    def displacement(self) -> Float[Tensor, "d n"]:
        """``D = C* - C``."""
        return self.targets - self.keys

    def seen(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, "d m"]:
        """What the edit sees of tokens: ``(I - UUᵀ)c``."""
        if self.removed is None:
            return columns
        return columns - self.removed @ (self.removed.T @ columns)

    def whitelist_retained(self) -> EditProblem:
        """The same problem with every column of zero displacement moved from C to R.

        Such a column carries ``sᵢ‖Δcᵢ‖²``: it is a retained one of weight ``sᵢ / η``.

        Raises:
            ValueError: there are such columns, but ``η`` is zero.
        """
        still = (self.displacement == 0).all(dim=0)
        if not bool(still.any()):
            return self
        if self.retain_strength == 0:
            raise ValueError("expected retain_strength > 0 to retain whitelist columns, got 0")
        moved = self.weights[still] / self.retain_strength
        return dataclasses.replace(
            self,
            keys=self.keys[:, ~still],
            targets=self.targets[:, ~still],
            weights=self.weights[~still],
            retain=torch.cat([self.retain, self.keys[:, still]], dim=1),
            retain_weights=torch.cat([self.retain_weights, moved]),
            content=None if self.content is None else self.content[~still],
        )

    def with_relative_scales(self, *, ridge: float, retain_strength: float) -> EditProblem:
        """Sets λ and η relative to the energy of the edited columns outside span(Z).

        ``λ = ridge · tr(PCSCᵀP) / tr(PΛP)`` and ``η = retain_strength · tr(PCSCᵀP) / tr(PRwRᵀP)``
        with ``P = NNᵀ``; for ``Λ = I`` the first denominator is rank P. Where nothing is retained
        η is zero.

        Raises:
            ValueError: the edited columns lie in the hard-retained space.
        """
        basis = free_basis(self.hard)
        energy = float((within(basis, self.keys).square() * self.weights).sum())
        if energy <= 1e-12 * float((self.keys.square() * self.weights).sum()):
            raise ValueError("the edited states lie in the hard-retained space; retain fewer")
        if self.penalty is None:
            penalty = float(self.width if basis is None else basis.shape[1])
        elif basis is None:
            penalty = float(self.penalty.trace())
        else:
            penalty = float((basis * (self.penalty @ basis)).sum())
        kept = float((within(basis, self.retain).square() * self.retain_weights).sum())
        return dataclasses.replace(
            self,
            ridge=ridge * energy / penalty,
            retain_strength=retain_strength * energy / kept if kept > 0 else 0.0,
        )


def _check_shapes(found: dict[str, Tensor]) -> None:
    sizes: dict[str, int] = {}
    for name, letters in _SHAPES.items():
        if name not in found:
            continue
        shape = tuple(found[name].shape)
        for letter, size in zip(letters, shape, strict=False):
            sizes.setdefault(letter, size)
        if shape != (expected := tuple(sizes.get(letter) for letter in letters)):
            raise ValueError(f"expected {name} of shape {expected}, got {shape}")
