"""From a finished run to what the README quotes; a reduced run never gets there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.folder import check_writable, replace_json, replace_text
from experiments.report.tables import markdown, unswept
from redediting.errors import OutputError

ROOT = Path(__file__).resolve().parent.parent.parent
README_KEYS = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "fid", "seconds")


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
    table = markdown(unswept(summary), README_KEYS)
    caption = (
        f"{summary['n_pairs']} pairs, {summary['n_seeds']} seed(s), {summary['images']} images "
        f"judged; mean over pairs (95 % interval over pairs). FID: N = "
        f"{summary['methods'][0]['fid_n']}, {summary['fidelity']['extractor']}, reference: "
        f"{summary['fidelity']['reference']}."
    )
    verdicts = "; ".join(f"{claim}: {v['verdict']}" for claim, v in summary["claims"].items())
    block = f"{table}\n\n{caption}\n\nClaims: {verdicts}."
    return place(folder, summary["experiment"], public(summary), block, root=root)


def place(folder: Path, name: str, results: dict[str, Any], block: str, *, root: Path) -> Path:
    """Writes ``experiments/results/NAME.json`` and a block of the README.

    Args:
        folder: of a finished run.
        name: of the experiment.
        results: what other programs may rely on.
        block: Markdown.
        root: of the checkout.

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
