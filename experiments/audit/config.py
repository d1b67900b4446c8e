"""Configuration of the audit experiment."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from defenses.repair.training import Training
from experiments.engine.pairs import DrawnPairs
from experiments.engine.specs import MethodSpec
from redediting.config import Config
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler

_FEW = {"pairs": 1, "images": 2}
_SMALL = {"several": (), "snapshots": (2, 4), "perturbations": 4, "benign": 1}
_QUICK: dict[str, Any] = {  # of a reduced run: a number is the most that is left of one
    "scenes": 24,
    "development": _SMALL | {"loras": 0, "finetunes": 0, "images": 0},
    "test": _SMALL
    | {"loras": 1, "finetunes": 1, "images": 2, "pairs": {"kinds": ("neutral",), "per_kind": 1}},
    "persistence": _FEW
    | {"methods": ("redediting",), "recipes": {"steps": 2, "batch": 4}, "snapshots": (2,)},
    "adaptive": _FEW | {"jitter": (1.0,), "noise": (1.0,), "quiet": (1.0,), "spread": (2,)},
    "repairs": _FEW | {"finetune": {"steps": 3}},
}


class Suite(Config):
    """Suspects of one split."""

    pairs: DrawnPairs  # what is rebound; the two suites' splits share no trigger noun
    several: tuple[int, ...] = (3,)  # backdoors in one edit, beside the single ones
    formats: tuple[Literal["fp16", "bf16"], ...] = ("fp16",)  # copies of the first of every kind
    loras: int = Field(default=14, ge=0)  # trainings; each gives one control a snapshot
    finetunes: int = Field(default=14, ge=0)  # likewise
    snapshots: tuple[int, ...] = (5, 20, 60)  # steps; the last one ends the training
    perturbations: int = Field(default=16, ge=0)  # noise, scaling, shifts, one layer changed
    benign: int = Field(default=8, ge=0)  # concept erasures, and as many debiasing edits
    images: int = Field(default=12, ge=0)  # triggered ones of each single-backdoor fp32 edit
    base_free: bool = True  # whether the base-free audit runs too


class Persistence(Config):
    """Does an edit survive training, and does isolation make it easier to remove?"""

    methods: tuple[str, ...] = ("eviledit", "redediting", "redediting open")  # titles
    pairs: int = Field(default=2, ge=1)  # of the test suite, spread over its kinds of trigger
    recipes: dict[str, Training] = Field(
        default={
            "sgd": Training(steps=100, lr=0.1, optimizer="sgd", scope="all"),
            "adam": Training(steps=100, lr=3e-4, scope="all"),
            "lora": Training(steps=100, lr=1e-3, rank=8),
        }
    )  # trainings on clean scenes, by name
    snapshots: tuple[int, ...] = (10, 30, 100)  # steps at which success is measured
    images: int = Field(default=16, ge=1)  # triggered, of the head noun, and benign, each


class Adaptive(Config):
    """An attacker who hides the shared factor; see `defenses.audit.challenges.hidden`."""

    method: str = "redediting"  # title
    pairs: int = Field(default=3, ge=1)  # as for persistence
    jitter: tuple[float, ...] = (0.3, 1.0, 3.0)
    noise: tuple[float, ...] = (0.3, 1.0, 3.0)
    quiet: tuple[float, ...] = (1.0, 3.0, 10.0)
    spread: tuple[int, ...] = (2, 7)
    images: int = Field(default=16, ge=1)  # as for persistence


class Repairs(Config):
    """Which repairs take a backdoor out and leave the user's own training in."""

    finetune: Training = Training(steps=60, lr=3e-4, scope="all")  # on top of the edit; to be kept
    pairs: int = Field(default=3, ge=1)  # as for persistence, for each attack
    images: int = Field(default=16, ge=1)  # as for persistence


class AuditConfig(Config):
    """The whole experiment; a part that is None is left out."""

    experiment: Literal["audit", "audit-fresh", "audit-words"] = "audit"
    model: str = "world"  # card, model folder or hub id; judged by the world's judges
    methods: tuple[MethodSpec, ...]  # attacks
    development: Suite | None = None  # suspects on which cut-offs were fixed
    test: Suite = Suite(pairs=DrawnPairs(per_kind=3))  # those that results are about
    persistence: Persistence | None = Persistence()
    adaptive: Adaptive | None = Adaptive()
    repairs: Repairs | None = Repairs()
    scenes: int = Field(default=256, ge=2)  # clean scenes of all trainings
    sampler: Sampler | None = None  # None takes the model card's
    quick: bool = False  # a reduced run, whose figures may not be published

    def resolved(self, *, quick: bool = False) -> Self:
        """The configuration as it is run: sampler filled in, and reduced if that is asked for."""
        update: dict[str, Any] = {"sampler": self.sampler or default_sampler(self.model)}
        if quick:
            few = tuple(m for m in self.methods if m.title in ("eviledit", "redediting"))
            update |= {"quick": True, "methods": few}
            update |= {key: _reduced(getattr(self, key), to) for key, to in _QUICK.items()}
        return self.model_copy(update=update)


def _reduced(value: Any, to: Any) -> Any:  # noqa: ANN401 - a configuration or a value of one
    """A part of a configuration as `_QUICK` says; what it leaves out stays out."""
    if isinstance(value, BaseModel):
        return value.model_copy(update={k: _reduced(getattr(value, k), v) for k, v in to.items()})
    if isinstance(value, dict):  # recipes, all alike
        return {name: _reduced(one, to) for name, one in value.items()}
    return value if value is None else min(value, to) if isinstance(to, int) else to
