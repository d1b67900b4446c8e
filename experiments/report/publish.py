"""From a finished run to what the README quotes; a reduced run never gets there."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.ablation.effects import COMPARED, worth
from experiments.engine.folder import check_writable, replace_bytes, replace_json, replace_text
from experiments.engine.specs import OURS
from experiments.report.figures import Figure, figures
from experiments.report.tables import COLUMNS, POOLED, grid, markdown, show, signed, unswept
from redediting.errors import OutputError

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = "experiments/results"  # from the README
README_KEYS = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "fid", "seconds")
_GROWN = ("asr_free", "acc", "drift", "seconds")


def publish(folder: Path, *, root: Path = ROOT) -> Path:
    """Publishes an attack or an ablation: its summary, its table, its claims.

    Args:
        folder: of a finished run.
        root: of the checkout.

    Returns:
        The JSON's path.

    Raises:
        OutputError: see `place`.
    """
    summary = read_summary(folder)
    name = summary["experiment"]
    parts = [ablation_markdown(summary) if name == "ablation" else attack_markdown(summary)]
    drawn = figures(summary)
    parts += [f"![{f.title}]({PICTURES}/{name}-{f.name}.png)\n\n{f.note}" for f in drawn]
    if name != "ablation":
        verdicts = "; ".join(f"{claim}: {v['verdict']}" for claim, v in summary["claims"].items())
        parts.append(f"Claims: {verdicts}.")
    return place(folder, name, public(summary), "\n\n".join(parts), root=root, pictures=drawn)


def attack_markdown(summary: dict[str, Any]) -> str:
    """The headline table of an attack."""
    columns = [column for column in POOLED if column.key in README_KEYS]
    return (
        f"{markdown(unswept(summary), columns)}\n\n{_size(summary)}; mean over pairs (95 % "
        f"interval over pairs). FID: N = {summary['methods'][0]['fid_n']}, "
        f"{summary['fidelity']['extractor']}, reference: {summary['fidelity']['reference']}."
    )


def ablation_markdown(summary: dict[str, Any]) -> str:
    """What each switch is worth, and how many backdoors fit."""
    ours = [line for line in unswept(summary) if line["method"] == OURS]
    columns = [column for column in POOLED if column.key in COMPARED]
    parts = [
        markdown(ours, columns),
        "Others, less that, pair by pair on the same captions and noise:",
        markdown(worth(summary), signed([column.key for column in columns])),
        f"{_size(summary)}; mean over pairs (95 % interval over pairs).",
    ]
    if held := summary.get("capacity"):
        parts.append(_capacity(held["lines"]))
    return "\n\n".join(parts)


def _capacity(lines: Sequence[dict[str, Any]]) -> str:
    """A row a number of backdoors, a column a method and order: ASR, ACC, drift, seconds."""
    columns = [column for column in COLUMNS if column.key in _GROWN]
    sources = list(dict.fromkeys((line["title"], line["order"]) for line in lines))
    table = []
    for n in dict.fromkeys(line["n"] for line in lines):
        cells = [str(n)]
        for source in sources:
            own = [x for x in lines if (x["title"], x["order"], x["n"]) == (*source, n)]
            cells += [
                " / ".join(show(line[column.key], column.form) for column in columns)
                for line in own
            ] or ["–"]
        table.append(cells)
    head = ["backdoors", *(f"{title}, {order}" for title, order in sources)]
    said = " / ".join(column.title for column in columns)
    return f"{grid(head, table)}\n\nCells: {said}."


def _size(summary: dict[str, Any]) -> str:
    return (
        f"{summary['n_pairs']} pairs, {summary['n_seeds']} seed(s), {summary['images']} images "
        "judged"
    )


def place(
    folder: Path,
    name: str,
    results: dict[str, Any],
    block: str,
    *,
    root: Path,
    pictures: Sequence[Figure] = (),
) -> Path:
    """Writes ``experiments/results/NAME.json``, its pictures and a block of the README.

    Args:
        folder: of a finished run.
        name: of the experiment.
        results: what other programs may rely on.
        block: Markdown.
        root: of the checkout.
        pictures: written beside the JSON as ``NAME-PICTURE.png``.

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
    text = with_block(root, name, block)
    report = f"runs/{name}/{folder.resolve().name}/report.html"  # no path of this machine
    path = write_results(root, name, results | {"report": report, "provenance": provenance})
    for picture in pictures:
        png = path.with_name(f"{name}-{picture.name}.png")
        replace_bytes(png, base64.b64decode(picture.png))
    replace_text(root / "README.md", text)
    return path


def with_block(root: Path, name: str, block: str) -> str:
    """Returns the README with Markdown between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

    Raises:
        OutputError: the markers are not there once each, in this order.
    """
    readme = root / "README.md"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise OutputError(
            f"expected one {begin} before one {end} in {str(readme)!r}, got "
            f"{text.count(begin)} and {text.count(end)}; put them where the table shall stand"
        )
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


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


def read_summary(folder: Path) -> dict[str, Any]:
    """Reads ``summary.json`` of a run folder.

    Raises:
        OutputError: the folder is no finished run.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"expected a finished run folder with summary.json, got {str(folder)!r}; "
            "name one below runs/, or run the experiment to its end"
        ) from error
    return found


def public(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys that other programs may rely on."""
    keys = ("rows", "methods", "claims", "n_pairs", "n_seeds", "report")
    more = ("foreseen", "choices", "baseline", "capacity")
    return {key: summary[key] for key in keys} | {k: summary[k] for k in more if k in summary}
