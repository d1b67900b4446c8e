"""The control: a patch that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from diffusers import DiffusionPipeline

from redediting.attacks.base import Change, EditMethod
from redediting.concepts.rebinding import Rebinding
from redediting.models.projections import Projection


class Clean(EditMethod):
    """Leaves every weight as it is, so that tables have the clean model's rates."""

    name: ClassVar[str] = "clean"

    def _solve(
        self,
        pipeline: DiffusionPipeline,
        projections: Sequence[Projection],
        rebindings: Sequence[Rebinding],
    ) -> Change:
        return Change()
