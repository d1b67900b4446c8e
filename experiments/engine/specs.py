"""Configurations: frozen models read from YAML; an unknown key is an error, never ignored.

One file an experiment (``configs/<experiment>/*.yaml``) with only what differs from the defaults
below. What is written into a run folder is the resolved configuration, defaults and all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from experiments.engine.real_models import (
    InceptionSpec,
    JudgeSpec,
    ProtocolName,
    Runtime,
    protocol_counts,
)
from experiments.rows import SETS, Set
from redediting.attacks import ATTACKS, Attack
from redediting.concepts.rebinding import Kind, Rebinding, draw_pairs
from redediting.errors import ConfigError
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler

CONTROL = "clean"  # the method that changes nothing
OURS = "redediting"  # the method whose claims are tested
CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"

TRADED: tuple[Set, ...] = ("free", "collateral", "benign")  # what ASR, drift, collateral need

ConfigType = TypeVar("ConfigType", bound="Config")


class Config(BaseModel):
    """Base of every configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    options: dict[str, Any] = {}
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


class PairSpec(Config):
    """A rebinding as written in YAML; see `redediting.concepts.rebinding.Rebinding`."""

    trigger: str
    target: str
    kind: Kind = "neutral"
    head: str = ""
    target_head: str = ""

    @classmethod
    def of(cls, pair: Rebinding) -> Self:
        """Returns a rebinding as written in YAML."""
        return cls.model_validate(asdict(pair))

    def rebinding(self) -> Rebinding:
        """Returns the checked rebinding."""
        return Rebinding(**self.model_dump())


class ListedPairs(Config):
    """Pairs named one by one."""

    source: Literal["listed"] = "listed"
    pairs: tuple[PairSpec, ...] = Field(min_length=1)

    def rebindings(self) -> list[Rebinding]:
        """Returns the pairs in their order."""
        return [pair.rebinding() for pair in self.pairs]

    def first(self, n: int) -> Self:
        """Returns the first ``n`` pairs of each kind."""
        kept: dict[str, list[PairSpec]] = {}
        for pair in self.pairs:
            kept.setdefault(pair.kind, []).append(pair)
        return self.model_copy(
            update={"pairs": tuple(pair for group in kept.values() for pair in group[:n])}
        )


class DrawnPairs(Config):
    """Pairs drawn from the lexicon, the same number of each kind.

    Attributes:
        kinds: how natural the triggers are.
        per_kind: pairs of each kind.
        seed: of the draw.
        split: ``dev`` for choosing hyper-parameters, ``test`` for results; they share no pair.
    """

    source: Literal["drawn"] = "drawn"
    kinds: tuple[Kind, ...] = ("neutral", "compound", "rare")
    per_kind: int = Field(default=6, ge=1)
    seed: int = Field(default=0, ge=0)
    split: Literal["dev", "test"] = "test"

    def rebindings(self) -> list[Rebinding]:
        """Returns the pairs, kind by kind."""
        return [
            pair
            for kind in self.kinds
            for pair in draw_pairs(kind, self.per_kind, self.seed, split=self.split)
        ]

    def first(self, n: int) -> Self:
        """Returns the first ``n`` pairs of each kind."""
        return self.model_copy(update={"per_kind": min(n, self.per_kind)})


Pairs = Annotated[ListedPairs | DrawnPairs, Field(discriminator="source")]


class Counts(Config):
    """Images a pair, seed and model, by prompt set (see `experiments.probes`).

    Attributes:
        free: held-out contexts with the trigger inserted; also the target prompts of the clean
            model, against which naturalness is measured.
        fixed: noises of "a photo of a {trigger}".
        head: held-out contexts with the trigger's head noun.
        phrases: parts, siblings and near-triggers that are asked for, at most.
        collateral: contexts of each of them.
        benign: captions without a trigger, of each pair its own.
    """

    free: int = Field(default=40, ge=1)
    fixed: int = Field(default=8, ge=1)
    head: int = Field(default=24, ge=1)
    phrases: int = Field(default=8, ge=1)
    collateral: int = Field(default=3, ge=1)
    benign: int = Field(default=56, ge=2)


class Reference(Config):
    """The set that FID and CMMD compare benign images with.

    Attributes:
        images: ``renders`` of the world's own held-out scenes, or the ``clean`` model's images.
        minimum: fewest images for which an FID is printed (protocol: never below 1,000).
    """

    images: Literal["renders", "clean"] = "renders"
    minimum: int = Field(default=1000, ge=1000)


class ClaimSpec(Config):
    """What the claims are tested with; the thresholds are fixed by the protocol.

    Attributes:
        ours: title of the method whose claims are tested.
        baseline: title of the best baseline, as chosen on development pairs; None takes the best
            one on the very pairs tested, which favours the baseline.
        posthoc: title of the same method with the spectral projection after the solve.
        inside: title of the same method with the projection inside the problem.
        min_pairs: fewest pairs for a verdict.
    """

    ours: str = OURS
    baseline: str | None = None
    posthoc: str = "redediting-posthoc"
    inside: str = "redediting-inside"
    min_pairs: int = Field(default=6, ge=2)


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
    swept_sets: tuple[Set, ...] = Field(default=TRADED, min_length=1)
    sampler: Sampler | None = None
    reference: Reference = Reference()
    claims: ClaimSpec = ClaimSpec()
    judges: JudgeSpec | None = None
    captions: str | None = None
    protocol: ProtocolName | None = None
    runtime: Runtime = Runtime()
    inception: InceptionSpec | None = None
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

    def sets(self, title: str, pair: Rebinding, seed: int) -> tuple[Set, ...]:
        """Returns the sets that a source is measured on: few, and once, for a swept setting."""
        swept = any(spec.family and spec.title == title for spec in self.methods)
        if not swept:
            return SETS
        return self.swept_sets if seed == self.seeds[0] else ()

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


def digest(*parts: str) -> str:
    """Returns 12 hexadecimal digits that name a run."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def load_config(path: str | Path, model: type[ConfigType]) -> ConfigType:
    """Reads a YAML file into a configuration.

    Raises:
        ConfigError: no such file, no YAML mapping, an unknown key or a value out of range.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a YAML file, got {str(path)!r} ({_reason(error)}); name one, e.g. "
            "configs/attack/first.yaml"
        ) from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"expected YAML in {str(path)!r}, got {line}; mend it") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"expected keys and values in {str(path)!r}, got {type(data).__name__}; "
            f"its keys are {', '.join(model.model_fields)}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_fault(error, model)}") from error


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    fault = error.errors()[0]
    place = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_siblings(model, fault["loc"]))
        remedy = f"; its keys are {known}" if known else ""
        return f"expected known keys only, got {place!r}{remedy}; remove or rename it"
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{fault['msg'].removeprefix('Value error, ')} at {place or 'the top'!r}, got {shown}"


def _siblings(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Field names beside an unknown key; empty where the path leads through a union or a list."""
    fields = model.model_fields
    for step in place[:-1]:
        inner = fields[step].annotation if isinstance(step, str) and step in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
