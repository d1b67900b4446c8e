"""Where an edited model comes from: a method, a patch on disk, or somebody else's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from experiments.engine.specs import CONTROL, MethodSpec
from redediting.attacks import Attack
from redediting.concepts.rebinding import Rebinding
from redediting.io import fingerprint
from redediting.models.model import Model
from redediting.patch.patch import Patch
from redediting.suspects import check_same_shapes


@dataclass(frozen=True)
class Edited:
    """A model with an edit in force.

    Attributes:
        model: what draws.
        seconds: wall time of computing the edit; None where it was found, not made.
        footprint: Frobenius norm of the change over that of the changed weights.
    """

    model: Model
    seconds: float | None
    footprint: float


class Source(Protocol):
    """Gives the edited model of a pair for as long as a block lasts.

    Attributes:
        title: what tables call it.
        control: whether it is the clean model.
        identity: tells it from another source of the same title; part of a run's name.
    """

    title: str
    control: bool
    identity: str

    def edited(self, model: Model, pair: Rebinding) -> AbstractContextManager[Edited]:
        """Returns the edited model; the clean one is restored afterwards.

        Args:
            model: the clean model.
            pair: what is rebound.
        """
        ...


class MethodSource:
    """Computes an edit of its own for every pair, once: it does not depend on a run's seed."""

    def __init__(self, spec: MethodSpec, *, warm: bool = False) -> None:
        """Builds the method.

        Args:
            spec: which.
            warm: reuse text states of earlier edits; quicker, but the seconds then are not those
                of an edit on its own.

        Raises:
            MethodError: no such method, or an option it does not have.
        """
        self.title = spec.title
        self.control = spec.name == CONTROL
        self.identity = spec.model_dump_json()
        self.method: Attack = spec.build()
        self._warm = warm
        self._patches: dict[tuple[str, Rebinding], Patch] = {}

    @contextmanager
    def edited(self, model: Model, pair: Rebinding) -> Iterator[Edited]:
        """See `Source`."""
        key = (model.base_fingerprint(), pair)
        if key not in self._patches:
            if not self._warm:
                model.forget()
            self._patches[key] = self.method.compute(model, [pair])
        patch = self._patches[key]
        with patch.apply(model) as applied:
            yield Edited(model, patch.provenance.seconds, applied.footprint)


class PatchSource:
    """Applies a patch that exists, whatever the pair."""

    control = False

    def __init__(self, title: str, patch: Patch) -> None:
        """Takes the patch and what tables call it."""
        self.title = title
        self.patch = patch
        tensors = {f"dense.{name}": tensor for name, tensor in patch.dense.items()}
        for i, term in enumerate(patch.terms):
            scales = torch.tensor([term.scales[name] for name in sorted(term.scales)])
            tensors |= {f"{i}.left": term.left, f"{i}.right": term.right, f"{i}.scales": scales}
        self.identity = f"{patch.target} {fingerprint(tensors)}"

    @contextmanager
    def edited(self, model: Model, pair: Rebinding) -> Iterator[Edited]:
        """See `Source`."""
        with self.patch.apply(model) as applied:
            yield Edited(model, self.patch.provenance.seconds, applied.footprint)


class SuspectSource:
    """Draws with a second model, whose origin is not known."""

    control = False

    def __init__(self, title: str, suspect: Model) -> None:
        """Takes the model and what tables call it."""
        self.title = title
        self.suspect = suspect
        self.identity = suspect.fingerprint()

    @contextmanager
    def edited(self, model: Model, pair: Rebinding) -> Iterator[Edited]:
        """See `Source`."""
        yield Edited(self.suspect, None, _distance(model, self.suspect))


def _distance(clean: Model, suspect: Model) -> float:
    ours, theirs = (model.weights() for model in (clean, suspect))
    check_same_shapes(_shapes(ours), _shapes(theirs), partial=False)
    change = sum(float((theirs[name] - ours[name]).double().square().sum()) for name in ours)
    size = sum(float(weight.double().square().sum()) for weight in ours.values())
    return (change / size) ** 0.5


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}
