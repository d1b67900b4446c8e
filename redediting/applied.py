"""Weights that are changed for a while and then put back, bit by bit."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Self

from torch import Tensor


class AppliedPatch:
    """A change in force; as a context manager it is reverted on exit.

    Adding and subtracting a change is not exact in floating point, so the originals are kept.

    Args:
        changes: pairs of a detached parameter and its new value in fp64.

    Attributes:
        footprint: ``‖ΔW‖_F / ‖W‖_F`` over the changed parameters.
        cast_error: ``‖W' - cast(W')‖_F / ‖ΔW‖_F``, rounding to the model's dtype.
    """

    def __init__(self, changes: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Keeps the originals and writes the new values, rounded to each parameter's dtype."""
        change = size = rounding = 0.0
        values = []
        for weight, exact in changes:
            cast = exact.to(weight.dtype)
            change += float((exact - weight.double()).square().sum())
            size += float(weight.double().square().sum())
            rounding += float((exact - cast.double()).square().sum())
            values.append(cast)
        self.footprint = (change / size) ** 0.5 if size else 0.0
        self.cast_error = (rounding / change) ** 0.5 if change else 0.0
        self._originals = [(weight, weight.clone()) for weight, _ in changes]
        for (weight, _), value in zip(changes, values, strict=True):
            weight.copy_(value)

    def revert(self) -> None:
        """Restores every original bit; a second call does nothing."""
        for weight, original in self._originals:
            weight.copy_(original)
        self._originals = []

    def __enter__(self) -> Self:
        """Leaves the change in force."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Reverts, whatever happened."""
        self.revert()
