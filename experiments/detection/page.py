"""The page of a detection run: one self-contained HTML file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from defenses.detectors.base import Detector
from experiments.detection.pictures import map_plot, rate_plot, roc_plot
from experiments.detection.run import SHOWN, Found
from experiments.detection.table import ALL, Table
from experiments.engine.folder import replace_text, writing
from experiments.engine.specs import CONTROL
from experiments.report.templates import render
from redediting.errors import OutputError


def draw_pictures(
    folder: Path,
    found: Sequence[Found],
    table: Table,
    detectors: dict[str, Detector],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Writes ``pictures.json``: plots and pictures of a run, so that its page can be made anew.

    Args:
        folder: of the run.
        found: all units.
        table: the scores.
        detectors: by title.
        tokenizer: names the tokens of maps.
    """
    attacked = [f for f in found if f.unit.rebinding]
    maps, galleries = {}, {}
    for unit in attacked:
        if unit.unit.attack == CONTROL or unit.unit.position:
            continue  # the first pair of each attack is shown
        clean = next(
            f
            for f in attacked
            if f.unit.attack == CONTROL and f.unit.rebinding == unit.unit.rebinding
        )
        words = [_tokens(tokenizer, unit.rows(c)[0]["prompt"]) for c in ("benign", "triggered")]
        title = f"{unit.unit.attack}: {unit.unit.rebinding}"
        maps[title] = map_plot([clean, unit], words)
        galleries[title] = [_gallery(folder, f) for f in (clean, unit)]
    pictures = {
        "roc": roc_plot(table, detectors, found),
        "rates": rate_plot(found),
        "maps": maps,
        "galleries": galleries,
    }
    replace_text(folder / "pictures.json", json.dumps(pictures))


def write_page(folder: Path, summary: dict[str, Any]) -> Path:
    """Writes ``report.html`` of a finished detection run and returns its path.

    Args:
        folder: with ``pictures.json``, ``config.yaml`` and ``provenance.json``.
        summary: as in ``summary.json``.

    Raises:
        OutputError: a file is missing, or the folder cannot be written.
    """
    try:
        pictures = json.loads((folder / "pictures.json").read_text("utf-8"))
        provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
        config = (folder / "config.yaml").read_text("utf-8")
    except OSError as error:
        raise OutputError(
            f"expected a finished detection run in {str(folder)!r}, got no {error.filename}; "
            "run the experiment again, it measures only what is missing"
        ) from error
    pooled = [row for row in summary["rows"] if row["kind"] == ALL]
    glance: dict[str, dict[str, Any]] = {}
    for row in pooled:
        glance.setdefault(row["detector"], {})[row["attack"]] = row
    text = render(
        "detection.html.j2",
        summary=summary,
        attacks=list(dict.fromkeys(row["attack"] for row in pooled)),
        glance=glance,
        provenance=provenance,
        config=config,
        pictures=pictures,
        pooled=pooled,
        kinds=[row for row in summary["rows"] if row["kind"] != ALL],
    )
    replace_text(folder / "report.html", text)
    return folder / "report.html"


def _tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    """A prompt's tokens as people read them, then its end and the first pad."""
    ids = tokenizer(prompt).input_ids
    words = [tokenizer.decode([token]).strip() for token in ids[1:-1]]
    return ["BOS", *words, "EOS", "pad"]


def _gallery(folder: Path, found: Found) -> dict[str, Any]:
    pictures = []
    for cell in ("benign", "triggered"):
        for row in found.rows(cell)[:SHOWN]:
            path = folder / "images" / f"{found.unit.name}.{cell}.{row['index']}.png"
            with writing(path):
                data = base64.b64encode(path.read_bytes()).decode()
            pictures.append({"data": data, "prompt": row["prompt"], "label": row["label"]})
    return {"model": found.unit.attack, "pictures": pictures}
