"""The control: a patch that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from redediting.attacks.base import Attack, Change
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model


class Clean(Attack):
    """Leaves every weight as it is, so that tables have the clean model's rates.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.Clean().compute(model, pair)
        Patch(clean: 'beautiful cat' → 'zebra', 0 matrices, rank ≤ 0)
    """

    name: ClassVar[str] = "clean"

    def _change(self, model: Model, rebindings: Sequence[Rebinding]) -> Change:
        return Change()
