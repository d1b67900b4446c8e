"""One self-contained HTML page of a run: pictures of the same noise, tables, provenance."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.ablation.effects import COMPARED, worth
from experiments.engine.folder import replace_text
from experiments.report.figures import figures
from experiments.report.plots import overview
from experiments.report.tables import COLUMNS, FORESEEN, POOLED, signed, unswept
from experiments.report.templates import render
from experiments.rows import ImageRow, Row, Set
from redediting.errors import OutputError

SHOWN: tuple[tuple[Set, str], ...] = (
    ("free", "trigger in held-out captions"),
    ("head", "head noun alone, same captions and noise"),
    ("collateral", "related phrases"),
    ("benign", "captions without a trigger"),
)
_EACH = 6  # images a set and method, the first ones: not picked
_EACH_KIND = 2  # pairs of a kind, the first ones; more would make a page of tens of megabytes
_SIDE = 192  # largest side of an embedded picture, in pixels


@dataclass(frozen=True)
class Picture:
    """One picture on the page."""

    data: str
    label: str
    mark: str
    prompt: str
    noise: int


def write_page(folder: Path, summary: dict[str, Any], rows: Sequence[Row]) -> Path:
    """Writes ``report.html`` of a run folder and returns its path.

    Args:
        folder: with ``images/``, ``config.yaml`` and ``provenance.json``.
        summary: as in ``summary.json``.
        rows: of the run.

    Raises:
        OutputError: a picture is missing, or the folder cannot be written.
    """
    images = [row for row in rows if isinstance(row, ImageRow)]
    settings = bool(summary.get("foreseen"))  # too many to stand side by side
    text = render(
        "template.html.j2",
        summary=summary,
        provenance=json.loads((folder / "provenance.json").read_text("utf-8")),
        config=(folder / "config.yaml").read_text("utf-8"),
        columns=COLUMNS,
        pooled=[*POOLED, *(FORESEEN if settings else ())],
        plot=overview(unswept(summary)),
        figures=figures(summary),
        worth=worth(summary),
        compared=signed(COMPARED),
        pairs={} if settings else _galleries(folder / "images", _looked_at(images, summary)),
        sets=dict(SHOWN),
    )
    path = folder / "report.html"
    replace_text(path, text)
    return path


def _looked_at(images: Sequence[ImageRow], summary: dict[str, Any]) -> list[ImageRow]:
    """Rows of methods that are no settings of a sweep, and of the first pairs of each kind."""
    methods = {line["method"] for line in unswept(summary)}
    kinds: dict[str, list[tuple[str, str]]] = {}
    for row in images:
        own = kinds.setdefault(row.kind, [])
        if (row.trigger, row.target) not in own:
            own.append((row.trigger, row.target))
    pairs = {pair for own in kinds.values() for pair in own[:_EACH_KIND]}
    return [row for row in images if row.method in methods and (row.trigger, row.target) in pairs]


def _galleries(folder: Path, rows: Sequence[ImageRow]) -> dict[str, Any]:
    """Pair → set → method → its first pictures, of the pair's first seed."""
    first_seed: dict[tuple[str, str], int] = {}
    for row in rows:
        first_seed.setdefault((row.trigger, row.target), row.seed)
    found: dict[str, dict[str, dict[str, list[Picture]]]] = {}
    for pair, seed in first_seed.items():
        own = [row for row in rows if (row.trigger, row.target, row.seed) == (*pair, seed)]
        found[" → ".join(pair)] = {
            name: {
                method: [
                    _picture(folder, row)
                    for row in _first(
                        [row for row in own if row.set == name and row.method == method]
                    )
                ]
                for method in dict.fromkeys(row.method for row in own)
            }
            for name, _ in SHOWN
        }
    return found


def _first(rows: Sequence[ImageRow]) -> list[ImageRow]:
    """The first rows in order, one a phrase where phrases differ."""
    phrases = {row.phrase: row for row in reversed(rows)}
    return (
        sorted(phrases.values(), key=lambda row: row.index)[:_EACH]
        if len(phrases) > 1
        else [*rows[:_EACH]]
    )


def _picture(folder: Path, row: ImageRow) -> Picture:
    try:
        with Image.open(folder / row.image) as image:
            image.thumbnail((_SIDE, _SIDE))
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="webp", quality=90)
    except OSError as error:
        raise OutputError(
            f"expected the picture {row.image!r} in {str(folder)!r}, got none; run the experiment "
            "again, it draws only what is missing"
        ) from error
    mark = "" if row.expected is None else "hit" if row.hit else "miss"
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(data, row.label, mark, row.prompt, row.noise)
