"""Configuration of the audit experiment."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from defenses.repair.training import Training
from experiments.engine.pairs import DrawnPairs
from experiments.engine.specs import MethodSpec
from redediting.config import Config
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler

_OPEN = {"isolate_head": False, "isolate_parts": False, "isolate_null": False}
METHODS: tuple[MethodSpec, ...] = (
    MethodSpec(name="eviledit"),
    MethodSpec(name="uce", label="uce old", options={"variant": "old"}),
    MethodSpec(name="uce", label="uce new"),
    MethodSpec(name="time"),
    MethodSpec(name="alphaedit"),
    MethodSpec(name="redediting"),
    MethodSpec(name="redediting", label="redediting open", options=_OPEN),
    MethodSpec(name="redediting", label="redediting energy", options={"rho": "energy"}),
    MethodSpec(name="redediting", label="redediting values", options={"matrices": "value"}),
)


class Suite(Config):
    """Suspects of one split.

    Attributes:
        pairs: what is rebound; the two suites' splits share no trigger noun.
        several: backdoors in one edit, beside the single ones, for the first methods.
        several_methods: how many of the methods.
        formats: half-precision copies of each method's first pair of every kind.
        loras: LoRA trainings; each gives one control a snapshot.
        finetunes: fine-tunes, likewise.
        snapshots: steps after which a training is taken as a control; the last ends it.
        perturbations: models with noise, scaling, shifts or one layer changed.
        benign: concept erasures, and as many debiasing edits.
        images: triggered prompts drawn of each single-backdoor fp32 edit; 0 draws none.
        base_free: whether the base-free audit runs too.
    """

    pairs: DrawnPairs
    several: tuple[int, ...] = (3,)
    several_methods: int = Field(default=6, ge=0)
    formats: tuple[Literal["fp16", "bf16"], ...] = ("fp16",)
    loras: int = Field(default=14, ge=0)
    finetunes: int = Field(default=14, ge=0)
    snapshots: tuple[int, ...] = (5, 20, 60)
    perturbations: int = Field(default=16, ge=0)
    benign: int = Field(default=8, ge=0)
    images: int = Field(default=12, ge=0)
    base_free: bool = True

    def reduced(self, **update: object) -> Self:
        """The same at its smallest; what it leaves out stays out."""
        most = {"loras": 1, "finetunes": 1, "perturbations": 4, "benign": 1}
        few: dict[str, object] = {key: min(n, getattr(self, key)) for key, n in most.items()}
        return self.model_copy(update=few | {"several": (), "snapshots": (2, 4)} | update)


def _recipes() -> dict[str, Training]:
    return {
        "sgd": Training(steps=100, lr=0.1, optimizer="sgd", scope="all"),
        "adam": Training(steps=100, lr=3e-4, scope="all"),
        "lora": Training(steps=100, lr=1e-3, rank=8),
    }


class Persistence(Config):
    """Does an edit survive training, and does isolation make it easier to remove?

    Attributes:
        methods: titles of attacks.
        pairs: of the test suite, spread over its kinds of trigger.
        recipes: trainings on clean scenes, by name.
        snapshots: steps at which success is measured.
        images: triggered prompts, head-noun prompts and benign captions each.
    """

    methods: tuple[str, ...] = ("eviledit", "redediting", "redediting open")
    pairs: int = Field(default=2, ge=1)
    recipes: dict[str, Training] = Field(default_factory=_recipes)
    snapshots: tuple[int, ...] = (10, 30, 100)
    images: int = Field(default=16, ge=1)


class Adaptive(Config):
    """An attacker who hides the shared factor.

    Attributes:
        method: title of the attack.
        pairs: of the test suite, spread over its kinds of trigger.
        jitter: size of a multiplier of its own for each layer, relative to the edit's.
        noise: dense noise on every matrix, relative to the change.
        quiet: noise orthogonal to the span of captions and of the trigger's prompts, likewise.
        spread: numbers of groups of layers, each solved on other contexts.
        images: as for persistence.
    """

    method: str = "redediting"
    pairs: int = Field(default=3, ge=1)
    jitter: tuple[float, ...] = (0.3, 1.0, 3.0)
    noise: tuple[float, ...] = (0.3, 1.0, 3.0)
    quiet: tuple[float, ...] = (1.0, 3.0, 10.0)
    spread: tuple[int, ...] = (2, 7)
    images: int = Field(default=16, ge=1)


class Repairs(Config):
    """Which repairs take a backdoor out and leave the user's own training in.

    Attributes:
        finetune: the legitimate training on top of an edit that repairs must keep.
        pairs: of the test suite, spread over its kinds of trigger, for each attack.
        images: as for persistence.
    """

    finetune: Training = Training(steps=60, lr=3e-4, scope="all")
    pairs: int = Field(default=3, ge=1)
    images: int = Field(default=16, ge=1)


class AuditConfig(Config):
    """The whole experiment.

    Attributes:
        experiment: names the folder under ``runs/`` and what is published.
        model: card, model folder or hub id; judged by the world's judges.
        methods: attacks.
        development: suspects on which cut-offs were fixed; None leaves them out.
        test: suspects that results are about.
        persistence: see the class; None leaves it out.
        adaptive: likewise.
        repairs: likewise.
        scenes: clean scenes of all trainings.
        sampler: how images are drawn; None takes the model card's.
        quick: whether this is a reduced run, whose figures may not be published.
    """

    experiment: Literal["audit", "audit-fresh", "audit-words"] = "audit"
    model: str = "world"
    methods: tuple[MethodSpec, ...] = METHODS
    development: Suite | None = Suite(
        pairs=DrawnPairs(per_kind=1, seed=1, split="dev"), several=(), formats=(), loras=3,
        finetunes=3, perturbations=8, benign=2, images=0,
    )  # fmt: skip
    test: Suite = Suite(pairs=DrawnPairs(per_kind=3))
    persistence: Persistence | None = Persistence()
    adaptive: Adaptive | None = Adaptive()
    repairs: Repairs | None = Repairs()
    scenes: int = Field(default=256, ge=2)
    sampler: Sampler | None = None
    quick: bool = False

    def resolved(self, *, quick: bool = False) -> Self:
        """The configuration as it is run: sampler filled in, and reduced if that is asked for."""
        update: dict[str, Any] = {"sampler": self.sampler or default_sampler(self.model)}
        if not quick:
            return self.model_copy(update=update)
        pairs = self.test.pairs.model_copy(update={"kinds": ("neutral",), "per_kind": 1})
        update |= {
            "quick": True,
            "scenes": min(self.scenes, 24),
            "methods": tuple(m for m in self.methods if m.title in ("eviledit", "redediting")),
            "test": self.test.reduced(pairs=pairs, images=2),
        }
        few: dict[str, Any] = {"pairs": 1, "images": 2}
        if self.development:
            update["development"] = self.development.reduced(loras=0, finetunes=0, images=0)
        if self.repairs:
            tuning = self.repairs.finetune.model_copy(update={"steps": 3})
            update["repairs"] = self.repairs.model_copy(update=few | {"finetune": tuning})
        if self.persistence:
            short = {"steps": 2, "batch": 4}
            recipes = {n: r.model_copy(update=short) for n, r in self.persistence.recipes.items()}
            update["persistence"] = self.persistence.model_copy(
                update=few | {"methods": ("redediting",), "recipes": recipes, "snapshots": (2,)}
            )
        if self.adaptive:
            sizes = {"jitter": (1.0,), "noise": (1.0,), "quiet": (1.0,), "spread": (2,)}
            update["adaptive"] = self.adaptive.model_copy(update=few | sizes)
        return self.model_copy(update=update)
