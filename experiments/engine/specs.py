"""Configurations: frozen models read from YAML; an unknown key is an error, never ignored.

One file an experiment (``configs/<experiment>/*.yaml``) with only what differs from the defaults
below. What is written into a run folder is the resolved configuration, defaults and all.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from experiments.engine.pairs import DrawnPairs, Pairs
from experiments.engine.real_models import (
    PROTOCOL_COUNTS,
    SCORES,
    InceptionSpec,
    JudgeChoice,
    ProtocolName,
    Runtime,
)
from redediting.attacks import ATTACKS, Attack
from redediting.concepts.captions import read_captions
from redediting.concepts.homoglyphs import with_twin
from redediting.concepts.rebinding import Rebinding
from redediting.config import Config
from redediting.evaluation.claims import ClaimSpec
from redediting.evaluation.entries import CONTROL, AttackEntry
from redediting.evaluation.evaluate import all_metrics
from redediting.evaluation.fidelity import Reference
from redediting.evaluation.measure import Task
from redediting.evaluation.protocol import Counts
from redediting.metrics.base import PROMPT_SETS, PromptSet
from redediting.metrics.clip import ClipSpec
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler

OURS = "redediting"  # the method whose claims are tested
CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


class MethodSpec(Config):
    """A method and its hyper-parameters."""

    name: str  # of the registry (`redediting.attacks`)
    # the method's own keyword hyper-parameters; what is not named keeps its default
    options: dict[str, Any] = Field(default={})
    label: str = ""  # what tables call it; the name when not given
    # other values of options: a grid, every combination of which is a setting of its own, or a
    # list of such grids
    sweep: tuple[dict[str, tuple[Any, ...]], ...] = ()
    # of such a setting: title of the method that it is a setting of. It is measured with the first
    # seed only, on the sets that the trade-off needs
    family: str = ""

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if isinstance(data, str):
            return {"name": data}
        if isinstance(data, dict) and isinstance(data.get("sweep"), dict):
            return data | {"sweep": [data["sweep"]]}
        return data

    @property
    def title(self) -> str:
        """The label, or the name."""
        return self.label or self.name

    def expanded(self) -> list[MethodSpec]:
        """Returns the method without its sweep, then the settings of the sweep."""
        own = self.model_copy(update={"sweep": ()})
        found = [own]
        grids = (
            (grid, values) for grid in self.sweep for values in itertools.product(*grid.values())
        )
        for grid, values in grids:
            options = dict(zip(grid, values, strict=True))
            said = " ".join(f"{key}={value}" for key, value in options.items())
            update = {
                "options": self.options | options,
                "label": f"{self.title} {said}",
                "family": self.title,
            }
            found.append(own.model_copy(update=update))
        return found

    def build(self) -> Attack:
        """Returns the method; `MethodError` where there is none such, or no such option."""
        return ATTACKS.make(self.name, **self.options)


class AttackSpec(MethodSpec):
    """An attack: a method, and how its trigger is written."""

    # exchange a letter of each trigger for one that looks alike (Rickrolling's way)
    twin: bool = False

    def rebinding(self, rebinding: Rebinding) -> Rebinding:
        """The pair as this attack builds it in."""
        if not self.twin:
            return rebinding
        marked = f"{with_twin(rebinding.modifier or rebinding.trigger)} {rebinding.head}".strip()
        return replace(rebinding, trigger=marked)


class Capacity(Config):
    """Many backdoors at once."""

    # what edits; both orders are solved, jointly and one after another
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200)  # numbers of backdoors
    # pairs, spread over those built in, that are measured at each size
    probed: int = Field(default=8, ge=2)
    # images a pair and model
    counts: Counts = Counts(free=8, fixed=1, head=6, phrases=2, collateral=1, benign=8)
    seed: int = Field(default=0, ge=0)  # of the draw of pairs

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.sizes or min(self.sizes) < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"expected rising sizes >= 1, got {list(self.sizes)}")
        return self


class AttackConfig(Config):
    """Methods x pairs x seeds on one model."""

    # names the folder under ``runs/``
    experiment: Literal["attack", "demo", "evaluate", "ablation", "development", "capacity"] = (
        "attack"
    )
    model: str = "world"  # card, model folder or hub id
    # what edits; the control is added when missing, and comes first
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    pairs: Pairs  # what is rebound
    # each fixes noise and the draw of contexts and captions
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    counts: Counts = Counts()  # images a pair, seed and model
    # what swept settings are measured on; by default what ASR, drift and collateral need
    swept_sets: tuple[PromptSet, ...] = Field(("free", "collateral", "benign"), min_length=1)
    sampler: Sampler | None = None  # how images are drawn; None takes the model card's
    reference: Reference = Reference()  # of FID and CMMD
    claims: ClaimSpec = ClaimSpec()  # which method's claims are tested
    # who decides what an image shows; ``world`` is for the embedded world alone
    judge: JudgeChoice = JudgeChoice()
    scores: ClipSpec = SCORES  # judge A of real models, which gives CLIP scores and features
    # ``everyday`` (bundled) or a file of captions; None draws the world's scenes
    captions: str | None = None
    # whose numbers of images are taken where ``counts`` is not given, and whose published figures
    # are printed beside ours; see `experiments.engine.real_models`
    protocol: ProtocolName | None = None
    runtime: Runtime = Runtime()  # precision, offloading
    inception: InceptionSpec | None = None  # FID on Inception features beside judge A's
    metrics: tuple[str, ...] = ()  # further ones, by the name of a plug-in or the path of a file
    quick: bool = False  # whether this is a reduced run, whose figures may not be published
    # the counts of such a run
    quick_counts: Counts = Counts(free=4, fixed=2, head=4, phrases=2, collateral=1, benign=4)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        titles = [spec.title for spec in self.methods]
        if len(set(titles)) < len(titles):
            raise ValueError(f"expected a label of its own for each method, got {titles}")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"expected distinct seeds >= 0, got {list(self.seeds)}")
        return self

    @property
    def families(self) -> dict[str, list[str]]:
        """Titles of each method's settings by its title, itself first; the control left out."""
        found: dict[str, list[str]] = {}
        for spec in self.methods:
            if spec.name != CONTROL:
                found.setdefault(spec.family or spec.title, []).append(spec.title)
        return found

    @property
    def dials(self) -> dict[str, dict[str, float]]:
        """λ of each method's settings that differ from it in λ alone, by title."""
        found: dict[str, dict[str, float]] = {}
        options = {spec.title: spec.options | {"ridge": None} for spec in self.methods}
        for spec in self.methods:
            family = spec.family or spec.title
            ridge = getattr(spec.build(), "ridge", None)
            if ridge is not None and options[spec.title] == options[family]:
                found.setdefault(family, {})[spec.title] = float(ridge)
        return found

    def sets(self, title: str, pair: Rebinding, seed: int) -> tuple[PromptSet, ...]:
        """Returns the sets that a source is measured on: few, and once, for a swept setting."""
        swept = any(spec.family and spec.title == title for spec in self.methods)
        if not swept:
            return PROMPT_SETS
        return self.swept_sets if seed == self.seeds[0] else ()

    def task(self) -> Task:
        """What a resolved configuration measures; `ConfigError` where it is unknown."""
        return Task(
            tuple(self.pairs.rebindings()),
            self.seeds,
            self.counts,
            self.sampler or default_sampler(self.model),
            all_metrics(self.metrics),
            split=self.pairs.split if isinstance(self.pairs, DrawnPairs) else "test",
            captions=None if self.captions is None else read_captions(self.captions),
            wanted=self.sets,
        )

    def entries(self, *, warm: bool = False) -> list[AttackEntry]:
        """The attacks of a resolved configuration, the control first.

        Swept settings, whose seconds nobody asks for, are always ``warm`` (`AttackEntry`).
        """
        return [
            AttackEntry(spec.build(), title=spec.title, warm=warm or bool(spec.family))
            for spec in self.methods
        ]

    def resolved(self, *, quick: bool = False) -> Self:
        """The configuration as it is run: sampler filled in, control first, reduced if quick.

        Reduced is: one pair a kind, one seed, small counts, two settings of each sweep.
        `MethodError` for a method or option that does not exist.
        """
        specs = [
            setting
            for spec in self.methods
            if spec.name != CONTROL
            for setting in spec.expanded()[: 3 if quick else None]
        ]
        for spec in specs:
            spec.build()
        self.judge.build()
        control = [spec for spec in self.methods if spec.name == CONTROL]
        update: dict[str, Any] = {
            "methods": (*(control or [MethodSpec(name=CONTROL)]), *specs),
            "sampler": self.sampler or default_sampler(self.model),
        }
        if self.protocol is not None and "counts" not in self.model_fields_set:
            update["counts"] = PROTOCOL_COUNTS[self.protocol]
        if quick:
            update |= {
                "quick": True,
                "counts": self.quick_counts,
                "pairs": self.pairs.first(1),
                "seeds": self.seeds[:1],
            }
        return self.model_copy(update=update)


class AblationConfig(AttackConfig):
    """An attack experiment on switches and sweeps, and on many backdoors at once."""

    experiment: Literal["ablation", "development"] = "ablation"
    # of the swept settings of each method the best so many, as foreseen on text states
    # (`redediting.evaluation.ranking`), are drawn and judged; None draws all
    confirm: int | None = Field(default=None, ge=1)
    # so many of each set of options that are swept together, not of a method
    confirm_by_axis: bool = False
    capacity: Capacity | None = None  # backdoors at once; None leaves the question out

    def resolved(self, *, quick: bool = False) -> Self:
        """See `AttackConfig`; reduced, two kinds of pairs and one setting of each sweep."""
        found = super().resolved(quick=quick)
        if not quick:
            return found
        update: dict[str, Any] = {"confirm": 1, "confirm_by_axis": False}
        if isinstance(found.pairs, DrawnPairs):
            update["pairs"] = found.pairs.model_copy(update={"kinds": found.pairs.kinds[:2]})
        return found.model_copy(update=update)
