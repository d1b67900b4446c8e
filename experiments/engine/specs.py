"""Configurations: frozen models read from YAML; an unknown key is an error, never ignored.

One file an experiment (``configs/<experiment>/*.yaml``) with only what differs from the defaults
below. What is written into a run folder is the resolved configuration, defaults and all.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from experiments.engine.pairs import DrawnPairs, Pairs
from experiments.engine.real_models import (
    InceptionSpec,
    JudgeSpec,
    ProtocolName,
    Runtime,
    protocol_counts,
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
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler

OURS = "redediting"  # the method whose claims are tested
CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"

TRADED: tuple[PromptSet, ...] = (
    "free",
    "collateral",
    "benign",
)  # what ASR, drift, collateral need


class MethodSpec(Config):
    """A method and its hyper-parameters.

    Attributes:
        name: of the registry (`redediting.attacks`).
        options: the method's own keyword hyper-parameters; what is not named keeps its default.
        label: what tables call it; the name when not given.
        sweep: other values of options: a grid, every combination of which is a setting of its own,
            or a list of such grids.
        family: of such a setting: title of the method that it is a setting of. It is measured with
            the first seed only, on the sets that the trade-off needs.
    """

    name: str
    options: dict[str, Any] = Field(default={})
    label: str = ""
    sweep: tuple[dict[str, tuple[Any, ...]], ...] = ()
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
        """Returns the method.

        Raises:
            MethodError: no such method, or an option it does not have.
        """
        return ATTACKS.make(self.name, **self.options)


class AttackSpec(MethodSpec):
    """An attack: a method, and how its trigger is written.

    Attributes:
        twin: exchange a letter of each trigger for one that looks alike (Rickrolling's way).
    """

    twin: bool = False

    def rebinding(self, rebinding: Rebinding) -> Rebinding:
        """The pair as this attack builds it in."""
        if not self.twin:
            return rebinding
        marked = f"{with_twin(rebinding.modifier or rebinding.trigger)} {rebinding.head}".strip()
        return Rebinding(
            marked, rebinding.target, rebinding.kind, rebinding.head, rebinding.target_head
        )


class Capacity(Config):
    """Many backdoors at once.

    Attributes:
        methods: what edits; both orders are solved, jointly and one after another.
        sizes: numbers of backdoors.
        probed: pairs, spread over those built in, that are measured at each size.
        counts: images a pair and model.
        seed: of the draw of pairs.
        quick_sizes: sizes of a reduced run.
    """

    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200)
    probed: int = Field(default=8, ge=2)
    counts: Counts = Counts(free=8, fixed=1, head=6, phrases=2, collateral=1, benign=8)
    seed: int = Field(default=0, ge=0)
    quick_sizes: tuple[int, ...] = (1, 2)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for sizes in (self.sizes, self.quick_sizes):
            if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
                raise ValueError(f"expected rising sizes >= 1, got {list(sizes)}")
        return self


class AttackConfig(Config):
    """Methods x pairs x seeds on one model.

    Attributes:
        experiment: names the folder under ``runs/``.
        model: card, model folder or hub id.
        methods: what edits; the control is added when missing, and comes first.
        pairs: what is rebound.
        seeds: each fixes noise and the draw of contexts and captions.
        counts: images a pair, seed and model.
        swept_sets: sets that swept settings are measured on.
        sampler: how images are drawn; None takes the model card's.
        reference: of FID and CMMD.
        claims: which method's claims are tested.
        judges: who looks; None is the embedded world's, for the world alone.
        captions: ``everyday`` (bundled) or a file of captions; None draws the world's scenes.
        protocol: whose numbers of images are taken where ``counts`` is not given, and whose
            published figures are printed beside ours; see `experiments.engine.real_models`.
        runtime: precision, offloading, compilation.
        inception: FID on Inception features beside judge A's.
        metrics: further ones, by the name of a plug-in or the path of a file.
        quick: whether this is a reduced run, whose figures may not be published.
        quick_counts: the counts of such a run.
    """

    experiment: Literal["attack", "demo", "evaluate", "ablation", "development", "capacity"] = (
        "attack"
    )
    model: str = "world"
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    pairs: Pairs
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    counts: Counts = Counts()
    swept_sets: tuple[PromptSet, ...] = Field(default=TRADED, min_length=1)
    sampler: Sampler | None = None
    reference: Reference = Reference()
    claims: ClaimSpec = ClaimSpec()
    judges: JudgeSpec | None = None
    captions: str | None = None
    protocol: ProtocolName | None = None
    runtime: Runtime = Runtime()
    inception: InceptionSpec | None = None
    metrics: tuple[str, ...] = ()
    quick: bool = False
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
        """What a resolved configuration measures.

        Raises:
            ConfigError: captions that cannot be read, or an unknown metric.
        """
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

        Args:
            warm: as for `AttackEntry`; swept settings, whose seconds nobody asks for, always are.

        Raises:
            MethodError: a method or option that does not exist.
        """
        return [
            AttackEntry(spec.build(), title=spec.title, warm=warm or bool(spec.family))
            for spec in self.methods
        ]

    def resolved(self, *, quick: bool = False) -> Self:
        """Returns the configuration as it is run: sampler filled in, control first, reduced.

        Reduced is: one pair a kind, one seed, small counts, two settings of each sweep.

        Raises:
            MethodError: a method or option that does not exist.
        """
        specs = [
            setting
            for spec in self.methods
            if spec.name != CONTROL
            for setting in spec.expanded()[: 3 if quick else None]
        ]
        for spec in specs:
            spec.build()
        control = [spec for spec in self.methods if spec.name == CONTROL]
        update: dict[str, Any] = {
            "methods": (*(control or [MethodSpec(name=CONTROL)]), *specs),
            "sampler": self.sampler or default_sampler(self.model),
        }
        if self.protocol is not None and "counts" not in self.model_fields_set:
            update["counts"] = Counts(**protocol_counts(self.protocol))
        if quick:
            update |= {
                "quick": True,
                "counts": self.quick_counts,
                "pairs": self.pairs.first(1),
                "seeds": self.seeds[:1],
            }
        return self.model_copy(update=update)


class AblationConfig(AttackConfig):
    """An attack experiment on switches and sweeps, and on many backdoors at once.

    Attributes:
        confirm: of the swept settings of each method the best so many, as foreseen on text states
            (`redediting.evaluation.ranking`), are drawn and judged; None draws all.
        confirm_by_axis: so many of each set of options that are swept together, not of a method.
        capacity: backdoors at once; None leaves the question out.
    """

    experiment: Literal["ablation", "development"] = "ablation"
    confirm: int | None = Field(default=None, ge=1)
    confirm_by_axis: bool = False
    capacity: Capacity | None = None

    def resolved(self, *, quick: bool = False) -> Self:
        """See `AttackConfig.resolved`; reduced, two kinds of pairs and one setting of each sweep.

        Raises:
            MethodError: a method or option that does not exist.
        """
        found = super().resolved(quick=quick)
        if not quick:
            return found
        update: dict[str, Any] = {"confirm": 1, "confirm_by_axis": False}
        if isinstance(found.pairs, DrawnPairs):
            update["pairs"] = found.pairs.model_copy(update={"kinds": found.pairs.kinds[:2]})
        return found.model_copy(update=update)
