"""From a finished run to what the documentation quotes; a reduced run never gets there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report.section import Section
from redediting.errors import OutputError
from redediting.io import check_writable, replace_bytes, replace_json, replace_text, writing

ROOT = Path(__file__).resolve().parent.parent.parent


def place(
    folder: Path,
    name: str,
    results: dict[str, Any],
    sections: Sequence[Section],
    *,
    root: Path = ROOT,
) -> Path:
    """Writes ``experiments/results/NAME.json``, its pictures and a block of the documentation.

    A named plot is written beside the page as ``NAME-PLOT.png``.

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
    plots = [section.plot for section in sections if section.plot and section.plot.name]
    shown = [f"![{plot.alt}](images/{name}-{plot.name}.png)" for plot in plots]
    text = with_block(page, name, "\n\n".join([*map(_markdown, sections), *shown]))
    report = f"runs/{name}/{folder.resolve().name}/report.html"  # no path of this machine
    path = write_results(root, name, results | {"report": report, "provenance": provenance})
    if plots:
        with writing(page.parent / "images"):
            (page.parent / "images").mkdir(exist_ok=True)
    for plot in plots:
        replace_bytes(page.parent / "images" / f"{name}-{plot.name}.png", plot.data)
    replace_text(page, text)
    return path


def _markdown(section: Section) -> str:
    title = f"**{section.title}.** " if section.title else ""
    table = section.frame.to_markdown() if section.frame else ""
    return "\n\n".join(part for part in (f"{title}{section.note}".strip(), table) if part)


def page_of(root: Path, name: str) -> Path:
    """The page of the documentation with an experiment's markers; `OutputError` unless one has."""
    begin = f"<!-- {name}:begin -->"
    found = [p for p in sorted((root / "docs").rglob("*.md")) if begin in p.read_text("utf-8")]
    if len(found) != 1:
        raise OutputError(
            f"expected {begin} in one page below {str(root / 'docs')!r}, got {len(found)}; put "
            "it where the table shall stand"
        )
    return found[0]


def with_block(page: Path, name: str, block: str) -> str:
    """A page with Markdown between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``."""
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
    """Writes ``experiments/results/NAME.json``; returns its path."""
    folder = root / "experiments" / "results"
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    replace_json(path, results)
    return path


def read_summary(path: Path) -> dict[str, Any]:
    """Reads ``summary.json`` of a run folder, or a published summary; else `OutputError`."""
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
