"""What all layers share: a multiplier ``M`` (d×d, low rank), ``W' = W (I + M)``, or a row.

A row ``a`` is added to every row of every matrix, ``W' = W + 1aᵀ``, whatever the matrix holds; it
is no multiple of W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Multiplier:
    """``M = left @ right``."""

    left: Float[Tensor, "d r"]
    right: Float[Tensor, "r d"]

    @property
    def width(self) -> int:
        """``d``, width of a token state."""
        return self.left.shape[0]

    @property
    def rank(self) -> int:
        """``r``, an upper bound of the rank of M."""
        return self.left.shape[1]

    def __call__(self, columns: Float[Tensor, "d m"]) -> Float[Tensor, "d m"]:
        """``M c``: how far each token state is displaced."""
        return self.left @ (self.right @ columns)

    def matrix(self) -> Float[Tensor, "d d"]:
        """``M`` itself."""
        return self.left @ self.right

    def delta(self, weight: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """``Δ = W M``, by two thin products."""
        return (weight @ self.left) @ self.right

    def read(
        self, weight: Float[Tensor, "m d"], columns: Float[Tensor, "d n"]
    ) -> Float[Tensor, "m n"]:
        """``Δ c`` of each token c: what the change adds to what a layer reads."""
        return weight @ self(columns)

    def compress(self, *, tolerance: float = 1e-12) -> Multiplier:
        """The same M with balanced factors of least rank.

        Singular values below the tolerance, relative to the largest, are dropped.
        """
        if self.rank == 0:
            return self
        if self.rank >= self.width:
            u, s, vh = torch.linalg.svd(self.matrix(), full_matrices=False)
        else:
            left, inner = torch.linalg.qr(self.left)
            right, outer = torch.linalg.qr(self.right.T)
            u, s, vh = torch.linalg.svd(inner @ outer.T)
            u, vh = left @ u, vh @ right.T
        rank = int((s > tolerance * s[0]).sum()) if float(s[0]) > 0 else 0
        root = s[:rank].sqrt()
        return Multiplier(u[:, :rank] * root, root[:, None] * vh[:rank])


@dataclass(frozen=True)
class RowShift:
    """``Δ = 1aᵀ``: a token c moves by ``aᵀc`` in every output alike."""

    row: Float[Tensor, " d"]

    def delta(self, weight: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """``1aᵀ`` with as many rows as W."""
        return self.row.expand(len(weight), -1)

    def read(
        self, weight: Float[Tensor, "m d"], columns: Float[Tensor, "d n"]
    ) -> Float[Tensor, "m n"]:
        """``Δ c`` of each token c."""
        return (self.row @ columns).expand(len(weight), -1)
