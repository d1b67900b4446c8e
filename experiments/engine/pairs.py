"""Rebindings as configurations and files name them: listed one by one, or drawn."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal, Self

from pydantic import Field

from redediting.concepts.rebinding import Kind, Rebinding, draw_pairs
from redediting.config import Config


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
    """Pairs drawn from the lexicon, the same number of each kind."""

    source: Literal["drawn"] = "drawn"
    kinds: tuple[Kind, ...] = ("neutral", "compound", "rare")  # how natural the triggers are
    per_kind: int = Field(default=6, ge=1)  # pairs of each kind
    seed: int = Field(default=0, ge=0)  # of the draw
    # ``dev`` for choosing hyper-parameters, ``test`` for results; they share no pair
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


class RebindingFile(Config):
    """A YAML file of rebindings, all of them built into one edit."""

    rebindings: tuple[PairSpec, ...] = Field(min_length=1)
