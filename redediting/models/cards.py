"""What a model's name stands for: a card, a folder, a checkpoint or a hub id. Loads nothing.

Cards say what is known of a model by name (``redediting/data/models.yaml``).
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import model_validator

from redediting.config import DATA, PIPELINE_DIR, Config
from redediting.errors import ModelError, WorldError
from redediting.io import one_line
from redediting.models.sampler import Sampler

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
    """What is known of a model by name."""

    title: str  # for tables
    sources: tuple[HubSource, ...] = ()  # in the order they are tried; none: the embedded world
    embedded: bool = False  # whether the weights come with this package
    sampler: Sampler = Sampler()
    licence: str  # of the weights
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # on an accelerator
    variant: str | None = None  # of the files on the hub, e.g. ``fp16``; None: the plain ones
    expected: Expected | None = None
    gigabytes: float | None = None  # of the download, about; from numbers of parameters

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


def find_sources(model: str | Path) -> list[tuple[str, str | None]]:
    """Where a model's files are, in the order they are tried: folder, file or id, and revision."""
    if not isinstance(model, str | Path):
        raise ModelError(
            f"expected a card, a folder, a checkpoint or a hub id, got {model!r}; name one of the "
            f"cards, e.g. {next(iter(load_cards()))!r}"
        )
    card = load_cards().get(str(model))
    if card is not None and card.embedded and not (PIPELINE_DIR / INDEX).is_file():
        raise WorldError(
            f"expected the embedded world's weights in {PIPELINE_DIR}, got no {INDEX}; "
            "install the package again or train them with python -m experiments.training"
        )
    if card is not None and card.embedded:
        return [(str(PIPELINE_DIR), None)]
    if card is not None:
        return [(source.id, source.revision) for source in card.sources]
    folder = Path(model).expanduser()
    cards = ", ".join(load_cards())
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise ModelError(
                f"expected a pipeline folder with {INDEX}, got {str(model)!r}; "
                f"name such a folder or one of the cards: {cards}"
            )
        _check_whole(folder)
        return [(str(folder), None)]
    if folder.is_file() and folder.suffix == ".safetensors":
        return [(str(folder), None)]
    if isinstance(model, str) and _HUB_ID.fullmatch(model):
        return [(model, None)]
    raise ModelError(
        f"expected a card, a pipeline folder, a .safetensors checkpoint or a hub id, got "
        f"{str(model)!r}; the cards are: {cards}"
    )


def _check_whole(folder: Path) -> None:
    """Refuses a folder that a download left half-way: without a component, a shard or its rest."""
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        wanted = [name for name, kind in index.items() if _is_saved(name, kind)]
        missing = [f"{name}/" for name in wanted if not (folder / name).is_dir()]
        for shards in folder.glob("*/*.index.json"):
            names = set(json.loads(shards.read_text("utf-8"))["weight_map"].values())
            gone = (name for name in sorted(names) if not (shards.parent / name).is_file())
            missing += [f"{shards.parent.name}/{name}" for name in gone]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"expected a readable {INDEX} in {str(folder)!r}, got {one_line(error)}; "
            "fetch the folder again"
        ) from error
    missing += [path.name for path in folder.rglob("*.incomplete")]
    if missing:
        raise ModelError(
            f"expected a whole pipeline in {str(folder)!r}, got it without {missing[0]} "
            f"({len(missing)} missing); the download stopped half-way: fetch the rest"
        )


def _is_saved(name: str, kind: object) -> bool:
    if name.startswith("_") or name == "safety_checker" or not isinstance(kind, list):
        return False
    return len(kind) == 2 and kind[1] is not None
