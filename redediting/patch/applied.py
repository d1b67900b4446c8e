"""Weights that are changed for a while and then put back, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rewrite:
    """A clean parameter, what writes its new value in place, and that value in fp64."""

    parameter: Tensor
    write: Callable[[Tensor], None]
    exact: Callable[[Tensor], Tensor]


class AppliedPatch:
    """A change in force; as a context manager it is reverted on exit.

    Adding and subtracting a change is not exact in floating point, so the originals are kept.
    The two figures below are computed when asked for, one parameter at a time.
    """

    def __init__(self, changes: Sequence[Rewrite]) -> None:
        self._changes = tuple(changes)
        self._originals: list[Tensor] | None = []
        with torch.no_grad():
            for change in self._changes:
                self._originals.append(change.parameter.detach().clone())
                change.write(change.parameter)

    @cached_property
    def footprint(self) -> float:
        """``‖ΔW‖_F / ‖W‖_F`` over the changed parameters, in exact arithmetic."""
        return self._figures[0]

    @cached_property
    def cast_error(self) -> float:
        """``‖W' - written(W')‖_F / ‖ΔW‖_F``: arithmetic and rounding in the model's dtype."""
        return self._figures[1]

    def revert(self) -> None:
        """Restores every original bit; a second call does nothing."""
        if self._originals is None:
            return
        with torch.no_grad():
            for change, original in zip(self._changes, self._originals, strict=True):
                change.parameter.copy_(original)
        self._originals = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.revert()

    @cached_property
    def _figures(self) -> tuple[float, float]:
        changed = size = missed = 0.0
        originals = self._originals  # reverted, the parameters themselves are clean
        originals = originals or [change.parameter.detach() for change in self._changes]
        with torch.no_grad():
            for change, original in zip(self._changes, originals, strict=True):
                exact, written = change.exact(original), original.clone()
                change.write(written)
                changed += float((exact - original.double()).square().sum())
                size += float(original.double().square().sum())
                missed += float((exact - written.double()).square().sum())
        footprint = (changed / size) ** 0.5 if size else 0.0
        return footprint, (missed / changed) ** 0.5 if changed else 0.0
