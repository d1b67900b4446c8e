"""Model cards: what is known of a model by name (``redediting/data/models.yaml``)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import model_validator

from redediting.config import DATA, Config
from redediting.models.sampler import Sampler


class HubSource(Config):
    """``owner/name`` on the model hub, at a commit; None takes the cached one, else the newest."""

    id: str
    revision: str | None = None


class Expected(Config):
    """Text projections: how many read token states, of what width, how many the pooled text."""

    tokens: int
    width: int
    pooled: int = 0


class ModelCard(Config):
    """What is known of a model by name.

    Attributes:
        title: name for tables.
        sources: hub ids in the order they are tried; empty for the embedded world.
        embedded: whether the weights come with this package.
        sampler: default sampler.
        licence: of the weights.
        dtype: floating type on an accelerator; a CPU computes in float32.
        variant: of the files on the hub, e.g. ``fp16``; None takes the plain ones.
        resolution: height and width in pixels that it was trained for.
        expected: its text projections.
        gigabytes: size of the download, about; counted from numbers of parameters.
    """

    title: str
    sources: tuple[HubSource, ...] = ()
    embedded: bool = False
    sampler: Sampler = Sampler()
    licence: str
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    variant: str | None = None
    resolution: int | None = None
    expected: Expected | None = None
    gigabytes: float | None = None

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.embedded == bool(self.sources):
            raise ValueError(f"expected either sources or embedded: true in card {self.title!r}")
        return self


@cache
def load_cards() -> dict[str, ModelCard]:
    """The model cards by name, in the order of the file."""
    cards = yaml.safe_load((DATA / "models.yaml").read_text("utf-8"))
    return {name: ModelCard.model_validate(card) for name, card in cards.items()}


def default_sampler(model: str | Path) -> Sampler:
    """The sampler of a model's card, or the general one for a folder or hub id."""
    card = load_cards().get(str(model))
    return card.sampler if card else Sampler()
