"""What a model's name stands for: a card, a folder, a checkpoint or a hub id. Loads nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

from redediting.config import PIPELINE_DIR
from redediting.errors import ModelError, WorldError
from redediting.io import one_line
from redediting.models.cards import load_cards

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_sources(model: str | Path) -> list[tuple[str, str | None]]:
    """Where a model's files are, in the order they are tried: folder, file or id, and revision."""
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
