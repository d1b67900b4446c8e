"""Entries of a comparison: an attack, a patch on disk, or somebody else's weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from redediting.attacks.base import Attack
from redediting.concepts.rebinding import Rebinding
from redediting.io import fingerprint
from redediting.models.model import Model
from redediting.patch.patch import Patch
from redediting.suspects import check_same_shapes

CONTROL = "clean"  # the attack that changes nothing


@dataclass(frozen=True)
class Edited:
    """A model with an edit in force."""

    model: Model  # what draws
    seconds: float | None  # wall time of computing the edit; None where it was found, not made
    footprint: float  # Frobenius norm of the change over that of the changed weights


class Entry(Protocol):
    """Gives the edited model of a rebinding for as long as a block lasts."""

    title: str  # what tables call it
    control: bool  # whether it is the clean model
    identity: str  # tells it from another entry of the same title; part of a run's name

    def edited(self, model: Model, rebinding: Rebinding) -> AbstractContextManager[Edited]:
        """The edited model; the clean one is restored afterwards."""
        ...


class AttackEntry:
    """Computes an edit of its own for every rebinding, once: a run's seed plays no part in it.

    With ``warm`` text states of earlier edits are used again: quicker, but the seconds are then
    not those of an edit on its own.
    """

    def __init__(self, attack: Attack, *, title: str = "", warm: bool = False) -> None:
        self.title = title or attack.name
        self.control = attack.name == CONTROL
        self.identity = json.dumps([self.title, attack.name, attack.model_dump(mode="json")])
        self.attack = attack
        self._warm = warm
        self._patches: dict[tuple[str, Rebinding], Patch] = {}

    @contextmanager
    def edited(self, model: Model, rebinding: Rebinding) -> Iterator[Edited]:
        """See `Entry`."""
        key = (model.base_fingerprint(), rebinding)
        if key not in self._patches:
            if not self._warm:
                model.forget()
            self._patches[key] = self.attack.compute(model, [rebinding])
        patch = self._patches[key]
        with patch.apply(model) as applied:
            yield Edited(model, patch.provenance.seconds, applied.footprint)


class PatchEntry:
    """Applies a patch that exists, whatever the rebinding."""

    control = False

    def __init__(self, title: str, patch: Patch) -> None:
        self.title = title
        self.patch = patch
        tensors = {f"dense.{name}": tensor for name, tensor in patch.dense.items()}
        for i, term in enumerate(patch.terms):
            scales = torch.tensor([term.scales[name] for name in sorted(term.scales)])
            tensors |= {f"{i}.left": term.left, f"{i}.right": term.right, f"{i}.scales": scales}
        self.identity = f"{patch.target} {fingerprint(tensors)}"

    @contextmanager
    def edited(self, model: Model, rebinding: Rebinding) -> Iterator[Edited]:
        """See `Entry`."""
        with self.patch.apply(model) as applied:
            yield Edited(model, self.patch.provenance.seconds, applied.footprint)


class SuspectEntry:
    """Draws with a second model, whose origin is not known."""

    control = False

    def __init__(self, title: str, suspect: Model) -> None:
        self.title = title
        self.suspect = suspect
        self.identity = suspect.fingerprint()

    @contextmanager
    def edited(self, model: Model, rebinding: Rebinding) -> Iterator[Edited]:
        """See `Entry`."""
        yield Edited(self.suspect, None, _distance(model, self.suspect))


def _distance(clean: Model, suspect: Model) -> float:
    ours, theirs = (model.weights() for model in (clean, suspect))
    check_same_shapes(ours, theirs)
    change = sum(float((theirs[name] - ours[name]).double().square().sum()) for name in ours)
    size = sum(float(weight.double().square().sum()) for weight in ours.values())
    return (change / size) ** 0.5
