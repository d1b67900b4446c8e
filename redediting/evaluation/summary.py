"""From rows to tables: one line an entry, rebinding and seed; one line an entry, pooled.

Within a rebinding a metric gives its own interval (`redediting.metrics.base`). Across rebindings
the rebinding is the resampling unit. What was not measured is ``None``, its interval too; nothing
is filled in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from redediting.evaluation.frame import Column
from redediting.evaluation.measure import UnitKey
from redediting.metrics.base import Measured, Metric, entry, rate
from redediting.metrics.intervals import over_clusters
from redediting.metrics.judge import agreement

Summary = dict[str, Any]
_BESIDE = ("asr_free_a", "agreement")  # judge A's rate, and how often the judges agree


def summary_rows(units: Mapping[UnitKey, Measured], metrics: Sequence[Metric]) -> list[Summary]:
    """Returns one summary a unit, in their order.

    Args:
        units: of `redediting.evaluation.measure.measured_units`.
        metrics: columns.
    """
    return [_summary(key, measured, metrics) for key, measured in units.items()]


def pooled(rows: Sequence[Summary], metrics: Sequence[Metric]) -> list[Summary]:
    """Returns one line an entry: means over rebindings and seeds, intervals over rebindings.

    Args:
        rows: of `summary_rows`.
        metrics: columns.
    """
    entries: dict[str, list[Summary]] = defaultdict(list)
    for row in rows:
        entries[row["method"]].append(row)
    found = []
    for title, own in entries.items():
        line: Summary = {"method": title}
        for name in (*(metric.name for metric in metrics), *_BESIDE):
            kept = [row for row in own if row[name] is not None]
            values = [row[name] for row in kept]
            clusters = [(row["trigger"], row["target"]) for row in kept]
            line |= entry(name, over_clusters(values, clusters))
        line["n_pairs"] = len({(row["trigger"], row["target"]) for row in own})
        line["n"] = sum(row["n"] for row in own)
        found.append(line)
    return found


def metric_columns(metrics: Sequence[Metric]) -> list[Column]:
    """The columns of metrics, in their order."""
    return [Column(m.name, m.title, m.form, m.direction, m.meaning, m.short) for m in metrics]


def differences(
    rows: Sequence[Summary], titles: Sequence[str], names: Sequence[str], *, reference: str
) -> list[Summary]:
    """Returns a line an entry: means over rebindings of its metric minus the reference's.

    The difference is taken within a rebinding and seed, on the same captions and noise, so that
    what makes a rebinding easy or hard falls out of its interval. A metric that one of the two
    lacks on a rebinding leaves that one out.

    Args:
        rows: of `summary_rows`.
        titles: entries wanted, in this order; the reference itself is skipped.
        names: of metrics.
        reference: title of the entry that the others are held against.

    Returns:
        ``method``, ``n_pairs``, and of each metric the difference and its ``_ci`` (95 %, over
        rebindings); nothing where the reference was not measured.
    """
    own = _by_unit(rows, reference)
    found = []
    for title in titles:
        other = _by_unit(rows, title)
        shared = [unit for unit in other if unit in own]
        if title == reference or not shared:
            continue
        line: Summary = {"method": title, "n_pairs": len({unit[:2] for unit in shared})}
        for name in names:
            kept = [u for u in shared if None not in (own[u][name], other[u][name])]
            gaps = [other[unit][name] - own[unit][name] for unit in kept]
            line |= entry(name, over_clusters(gaps, [unit[:2] for unit in kept]))
        found.append(line)
    return found


def _by_unit(rows: Sequence[Summary], title: str) -> dict[tuple[str, str, int], Summary]:
    return {
        (row["trigger"], row["target"], row["seed"]): row for row in rows if row["method"] == title
    }


def _summary(key: UnitKey, measured: Measured, metrics: Sequence[Metric]) -> Summary:
    line: Summary = {
        "method": key.method,
        "trigger": key.trigger,
        "target": key.target,
        "kind": key.kind,
        "seed": key.seed,
    }
    for metric in metrics:
        line |= entry(metric.name, metric.aggregate(measured))
    free, images = measured.of("free"), measured.images
    line |= entry("asr_free_a", rate([i.label_a == i.expected for i in free]))
    both = agreement([i.label for i in images], [i.label_a for i in images])
    line |= entry("agreement", both)
    line["n"] = len(free)
    line["n_sets"] = dict(Counter(image.set for image in images))
    return line
