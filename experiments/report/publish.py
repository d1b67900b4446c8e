"""From a finished run to what the documentation quotes; a reduced run never gets there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report.section import Plot
from redediting.errors import OutputError
from redediting.io import check_writable, replace_bytes, replace_json, replace_text, writing

ROOT = Path(__file__).resolve().parent.parent.parent


def place(
    folder: Path,
    name: str,
    results: dict[str, Any],
    block: str,
    *,
    root: Path = ROOT,
    pictures: Sequence[Plot] = (),
) -> Path:
    """Writes ``experiments/results/NAME.json``, its pictures and a block of the documentation.

    Args:
        folder: of a finished run.
        name: of the experiment.
        results: what other programs may rely on.
        block: Markdown.
        root: of the checkout.
        pictures: written beside the page as ``NAME-PICTURE.png``.

    Returns:
        The JSON's path.

    Raises:
        OutputError: a reduced or unfinished run, no such markers, or an unwritable checkout.
    """
    provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
    if provenance["quick"]:
        raise OutputError(
            f"expected a full run to publish, got {str(folder)!r}, made with --quick; "
            "run the experiment without it"
        )
    page = page_of(root, name)
    shown = [
        f"![{plot.alt}](images/{name}-{plot.name}.png)" for plot in pictures
    ]  # fmt: skip
    text = with_block(page, name, "\n\n".join([block, *shown]))
    report = f"runs/{name}/{folder.resolve().name}/report.html"  # no path of this machine
    path = write_results(root, name, results | {"report": report, "provenance": provenance})
    if pictures:
        with writing(page.parent / "images"):
            (page.parent / "images").mkdir(exist_ok=True)
    for plot in pictures:
        replace_bytes(page.parent / "images" / f"{name}-{plot.name}.png", plot.data)
    replace_text(page, text)
    return path


def page_of(root: Path, name: str) -> Path:
    """The page of the documentation that quotes an experiment: the one with its markers.

    Raises:
        OutputError: no page, or several, have them.
    """
    begin = f"<!-- {name}:begin -->"
    found = [p for p in sorted((root / "docs").rglob("*.md")) if begin in p.read_text("utf-8")]
    if len(found) != 1:
        raise OutputError(
            f"expected {begin} in one page below {str(root / 'docs')!r}, got {len(found)}; put "
            "it where the table shall stand"
        )
    return found[0]


def with_block(page: Path, name: str, block: str) -> str:
    """Returns a page with Markdown between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

    Raises:
        OutputError: the markers are not there once each, in this order.
    """
    text = page.read_text("utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise OutputError(
            f"expected one {begin} before one {end} in {str(page)!r}, got "
            f"{text.count(begin)} and {text.count(end)}; put them where the table shall stand"
        )
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{block}\n\n{end}{rest.split(end)[1]}"


def write_results(root: Path, name: str, results: dict[str, Any]) -> Path:
    """Writes ``experiments/results/NAME.json``; returns its path.

    Raises:
        OutputError: the checkout cannot be written.
    """
    folder = root / "experiments" / "results"
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    replace_json(path, results)
    return path


def read_summary(path: Path) -> dict[str, Any]:
    """Reads ``summary.json`` of a run folder, or a published summary.

    Raises:
        OutputError: no finished run.
    """
    file = path if path.is_file() else path / "summary.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"expected a finished run folder with summary.json, or a published summary, got "
            f"{str(path)!r}; name one below runs/ or experiments/results/, or run the experiment "
            "to its end"
        ) from error
    return found


def public(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys that other programs may rely on."""
    keys = ("rows", "methods", "claims", "n_pairs", "n_seeds", "report", "foreseen", "choices",
            "baseline", "capacity", "families", "schema_version")  # fmt: skip
    return {key: summary[key] for key in keys if key in summary}
