"""From rows to tables: one line an entry, rebinding and seed; one line an entry, pooled.

Within a rebinding a metric gives its own interval (`redediting.metrics.base`). Across rebindings
the rebinding is the cluster: its seeds are none. What was not measured is ``None``, its interval
too; where too few rebindings carry an interval their values stand under ``KEY_values``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from redediting.evaluation.frame import Column
from redediting.evaluation.measure import UnitKey
from redediting.metrics.base import Measured, Metric, entry, rate
from redediting.metrics.contrasts import holm, sign_flips
from redediting.metrics.intervals import FEWEST, RATE, Support, mean_over
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
        scales: dict[str, Support | None] = {m.name: m.support for m in metrics}
        for name, scale in (scales | dict.fromkeys(_BESIDE, RATE)).items():
            kept = [row for row in own if row[name] is not None]
            values = [row[name] for row in kept]
            clusters = [(row["trigger"], row["target"]) for row in kept]
            line |= entry(name, mean_over(values, clusters, support=scale) if kept else None)
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
    lacks on a rebinding leaves that one out. Such a table is exploratory: none of its contrasts
    was named beforehand, each interval is its own. P values (sign flips over rebindings) are
    adjusted by Holm for all contrasts of the table.

    Args:
        rows: of `summary_rows`.
        titles: entries wanted, in this order; the reference itself is skipped.
        names: of metrics.
        reference: title of the entry that the others are held against.

    Returns:
        ``method``, ``n_pairs``, and of each metric the difference, its ``_ci`` or ``_values``,
        and ``_p`` (None below `FEWEST` rebindings); nothing where the reference was not measured.
    """
    gaps = {
        (title, name): gap
        for title in titles
        if title != reference
        for name in names
        if (gap := by_pair(rows, name, title, reference))
    }
    tested = [key for key, own in gaps.items() if len(own) >= FEWEST]
    adjusted = holm([sign_flips(list(gaps[key].values())) for key in tested])
    p = dict(zip(tested, adjusted, strict=True))
    found = []
    for title in dict.fromkeys(title for title, _ in gaps):
        pairs = {pair for (who, _), own in gaps.items() if who == title for pair in own}
        line: Summary = {"method": title, "n_pairs": len(pairs)}
        for name in names:
            own = gaps.get((title, name))
            line |= entry(name, mean_over(list(own.values())) if own else None)
            line[f"{name}_p"] = p.get((title, name))
        found.append(line)
    return found


def by_pair(
    rows: Sequence[Summary], name: str, title: str, reference: str | None = None
) -> dict[tuple[str, str], float]:
    """An entry's metric on each rebinding, mean over seeds; less a reference's on the same ones.

    Args:
        rows: of `summary_rows`.
        name: of the metric; a rebinding and seed without it, on either side, is left out.
        title: of the entry.
        reference: title of the entry held against.
    """
    own, other = (
        {
            (row["trigger"], row["target"], row["seed"]): row[name]
            for row in rows
            if row["method"] == who and row.get(name) is not None
        }
        for who in (title, reference)
    )
    if reference is not None:
        own = {unit: own[unit] - other[unit] for unit in own if unit in other}
    found: dict[tuple[str, str], list[float]] = {}
    for (trigger, target, _), value in own.items():
        found.setdefault((trigger, target), []).append(value)
    return {pair: fmean(values) for pair, values in found.items()}


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
