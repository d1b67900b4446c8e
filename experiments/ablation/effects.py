"""What each switch of a method is worth: differences to the method as it is, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.engine.specs import OURS
from experiments.report.tables import unswept
from experiments.summary import Summary, entry, over_pairs

COMPARED = ("asr_free", "acc", "collateral", "drift", "attribute_transfer")


def differences(
    rows: Sequence[Summary], titles: Sequence[str], *, reference: str
) -> list[Summary]:
    """Returns a line a method: means over pairs of its metric minus the reference's.

    The difference is taken within a pair and seed, on the same captions and noise, so that what
    makes a pair easy or hard falls out of its interval. A metric that one of the two lacks on a
    pair leaves that pair out.

    Args:
        rows: of `experiments.summary.summary_rows`.
        titles: methods wanted, in this order; the reference itself is skipped.
        reference: title of the method that the others are held against.

    Returns:
        ``method``, ``n_pairs``, and of each of `COMPARED` the difference and its ``_ci`` (95 %,
        over pairs); nothing where the reference was not measured.
    """
    own = _by_unit(rows, reference)
    found = []
    for title in titles:
        other = _by_unit(rows, title)
        shared = [unit for unit in other if unit in own]
        if title == reference or not shared:
            continue
        line: Summary = {"method": title, "n_pairs": len({unit[:2] for unit in shared})}
        for key in COMPARED:
            kept = [u for u in shared if None not in (own[u][key], other[u][key])]
            gaps = [other[unit][key] - own[unit][key] for unit in kept]
            line |= entry(key, over_pairs(gaps, [unit[:2] for unit in kept]))
        found.append(line)
    return found


def worth(summary: Mapping[str, Any]) -> list[Summary]:
    """An ablation's switches and rivals against the method by default; nothing elsewhere."""
    if summary["experiment"] != "ablation":
        return []
    titles = [line["method"] for line in unswept(summary)]
    return differences(summary["rows"], titles, reference=OURS)


def _by_unit(rows: Sequence[Summary], title: str) -> dict[tuple[str, str, int], Summary]:
    return {
        (row["trigger"], row["target"], row["seed"]): row for row in rows if row["method"] == title
    }
