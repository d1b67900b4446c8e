"""The control: a patch that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from diffusers import DiffusionPipeline

from redediting.editing.methods.base import Change, EditMethod
from redediting.projections import Projection
from redediting.rebinding import Rebinding


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
