"""Benchmarks in the documentation, each measured in one run."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.bench.report import edit_table, generation_line, growth_line
from experiments.report.publish import ROOT, page_of, with_block, write_results
from redediting.errors import OutputError
from redediting.io import replace_text

LEAST_REPEATS = 5  # of a median that may be quoted


def publish_bench(folder: Path, *, root: Path = ROOT) -> Path:
    """Writes ``experiments/results/bench-NAME.json`` and the documentation's block of all.

    `OutputError` for a reduced run, no markers in ``docs/``, or an unwritable checkout.
    """
    name = folder.resolve().name
    found = json.loads((folder / "bench.json").read_text("utf-8"))
    if not found["quotable"]:
        raise OutputError(
            f"expected medians of {LEAST_REPEATS} turns or more to publish, got {str(folder)!r} "
            "with fewer; run the benchmark without --quick and with --repeats 5"
        )
    files = sorted((root / "experiments" / "results").glob("bench-*.json"))
    results = {path.stem[len("bench-") :]: json.loads(path.read_text("utf-8")) for path in files}
    results = dict(sorted((results | {name: found}).items()))
    edits = [one for title, one in results.items() if title.startswith("edit-")]
    lines = [edit_table(edits).to_markdown()] if edits else []
    lines += [growth_line(one) for title, one in results.items() if title.startswith("growth-")]
    if "generation" in results:
        lines.append(generation_line(results["generation"]))
    page = page_of(root, "bench")
    text = with_block(page, "bench", "\n\n".join(lines))
    path = write_results(root, f"bench-{name}", found)
    replace_text(page, text)
    return path
