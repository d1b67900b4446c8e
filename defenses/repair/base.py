"""What every repair is: a suspect in, a patch for it out, the model untouched."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

from torch import Tensor

from redediting import __version__
from redediting.config import Config
from redediting.errors import MethodError
from redediting.models.model import Model
from redediting.patch.files import Provenance
from redediting.patch.patch import Patch, Term


@dataclass(frozen=True)
class Repaired:
    """What a repair found."""

    terms: tuple[Term, ...] = ()  # shared changes of the suspect's weights
    dense: Mapping[str, Tensor] = field(default_factory=dict)  # whole new parameters, by name
    measured: Mapping[str, float] = field(default_factory=dict)  # figures worth keeping, by name


@dataclass(frozen=True)
class Case:
    """A suspect and what the defender knows."""

    suspect: Model  # its model, to be repaired
    # trusted projections by name; None where there is no base
    base: Mapping[str, Tensor] | None = None
    triggers: tuple[str, ...] = ()  # phrases under suspicion, e.g. from the audit

    @property
    def trusted(self) -> Mapping[str, Tensor]:
        """The base; `MethodError` where there is none."""
        if self.base is None:
            raise MethodError("expected trusted weights, got none; name a base")
        return self.base

    @property
    def weights(self) -> dict[str, Tensor]:
        """The suspect's projections by name; they share its memory."""
        return self.suspect.weights()


class Repair(Config, ABC):
    """Base of all repairs; the fields of a subclass are its hyper-parameters, by keyword."""

    name: ClassVar[str]
    error: ClassVar = MethodError
    needs_base: ClassVar[bool] = False
    needs_triggers: ClassVar[bool] = False

    @final
    def compute(
        self,
        suspect: Model,
        *,
        base: Mapping[str, Tensor] | None = None,
        triggers: Sequence[str] = (),
    ) -> Patch:
        """Computes a patch that repairs the suspect. The model is read, never written.

        Args:
            suspect: the model to repair.
            base: trusted projections by name, where there are any.
            triggers: phrases under suspicion.

        Raises:
            MethodError: what the repair needs is missing, or there is nothing to repair.
            ModelError: the model has no cross-attention on text.
        """
        case = Case(suspect, base, tuple(triggers))
        if self.needs_base and base is None:
            raise MethodError(
                f"expected trusted weights for repair {self.name!r}, got none; "
                "name a base, or take rebinding, projection, finetune or lora"
            )
        if self.needs_triggers and not triggers:
            raise MethodError(
                f"expected suspected triggers for repair {self.name!r}, got none; "
                "name them, or give a base so that the audit finds them"
            )
        start = time.perf_counter()
        found = self._repair(case)
        provenance = Provenance(
            method=self.name,
            options=self.model_dump(mode="json"),
            rebindings=[],
            seconds=time.perf_counter() - start,
            version=__version__,
            purpose="repair",
            measured=dict(found.measured),
        )
        patch = Patch("", provenance, found.terms, found.dense)
        return replace(patch, base=suspect.base_fingerprint(patch.target, patch.names))

    @abstractmethod
    def _repair(self, case: Case) -> Repaired:
        """Finds the change; what it needs is there."""
