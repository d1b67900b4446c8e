"""From rows to the tables: one line a method, pair and seed; one line a method, pooled.

Rates within a pair have Wilson's interval, differences by noise Newcombe's or a bootstrap over
images, collateral a bootstrap over phrases. Across pairs the pair is the resampling unit.
A metric that was not measured is ``None``, its interval too; nothing is filled in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.rows import EditRow, ImageRow, Row, Set, Unit, unit_of
from redediting.metrics.intervals import (
    Interval,
    bootstrap_mean,
    cluster_bootstrap,
    paired_rate_difference,
    wilson,
)
from redediting.metrics.judge import agreement

# what a summary row measures, in the order of the columns; each has a `<key>_ci` beside it
METRICS = (
    "asr_free",
    "asr_fixed",
    "net_asr",
    "acc",
    "collateral",
    "collateral_worst",
    "attribute_transfer",
    "context_kept",
    "psr",
    "clip_p",
    "clip_c",
    "drift",
    "footprint",
    "footprint_rank",
    "footprint_energy",
    "seconds",
)
Summary = dict[str, Any]


def summary_rows(rows: Sequence[Row]) -> list[Summary]:
    """Returns one summary a unit, in the order of the rows.

    Args:
        rows: complete units (`experiments.rows.RowFile`).
    """
    images: dict[Unit, list[ImageRow]] = defaultdict(list)
    edits: dict[Unit, EditRow] = {}
    for row in rows:
        if isinstance(row, EditRow):
            edits[unit_of(row)] = row
        else:
            images[unit_of(row)].append(row)
    return [_summary(unit, images[unit], edit) for unit, edit in edits.items()]


def pooled(rows: Sequence[Summary]) -> list[Summary]:
    """Returns one line a method: means over pairs and seeds, intervals over pairs.

    Args:
        rows: of `summary_rows`.
    """
    methods: dict[str, list[Summary]] = defaultdict(list)
    for row in rows:
        methods[row["method"]].append(row)
    found = []
    for method, own in methods.items():
        line: Summary = {"method": method}
        for key in (*METRICS, "asr_free_a", "agreement"):
            kept = [row for row in own if row[key] is not None]
            values = [row[key] for row in kept]
            clusters = [(row["trigger"], row["target"]) for row in kept]
            line |= entry(key, over_pairs(values, clusters))
        line["n_pairs"] = len({(row["trigger"], row["target"]) for row in own})
        line["n"] = sum(row["n"] for row in own)
        found.append(line)
    return found


def over_pairs(values: Sequence[float], pairs: Sequence[object]) -> Interval | None:
    """Returns a mean with its interval over pairs; without a width it is only a mean.

    Args:
        values: one a pair and seed.
        pairs: to which pair each belongs.
    """
    if not values:
        return None
    labels = [str(pair) for pair in pairs]
    if len(set(labels)) < 2:
        mean = float(np.mean(values))
        return Interval(mean, float("nan"), float("nan"), len(values))
    return cluster_bootstrap(values, labels)


def _summary(unit: Unit, images: Sequence[ImageRow], edit: EditRow) -> Summary:
    sets: Mapping[Set, list[ImageRow]] = defaultdict(list)
    for image in images:
        sets[image.set].append(image)
    free, benign = sets["free"], sets["benign"]
    line: Summary = {
        "method": unit.method,
        "trigger": unit.trigger,
        "target": unit.target,
        "kind": unit.kind,
        "seed": unit.seed,
    }
    worst, mean = _collateral(sets["collateral"])
    measured = {
        "asr_free": _rate(row.hit for row in free),
        "asr_fixed": _rate(row.hit for row in sets["fixed"]),
        "net_asr": paired_rate_difference(
            [row.hit for row in free], [row.clean_hit for row in free]
        ),
        "acc": _rate(row.hit for row in sets["head"] if row.expected),
        "collateral": mean,
        "collateral_worst": worst,
        **_attributes(free),
        "clip_p": _mean([row.clip for row in free]),
        "clip_c": _mean([row.clip for row in benign]),
        "drift": _mean([row.drift for row in benign]),
        "footprint": _exact(edit.footprint),
        "footprint_rank": _exact(edit.rank),
        "footprint_energy": _exact(edit.energy),
        "seconds": _exact(edit.seconds),
        "asr_free_a": _rate(row.label_a == row.expected for row in free),
        "agreement": agreement([row.label for row in images], [row.label_a for row in images]),
    }
    for key, interval in measured.items():
        line |= entry(key, interval)
    line["n"] = len(free)
    line["n_sets"] = {name: len(found) for name, found in sets.items()}
    return line


def _attributes(free: Sequence[ImageRow]) -> dict[str, Interval | None]:
    """What triggered images took over from the target, and what they kept of their own prompt.

    ``attribute_transfer``: object and colour both, for targets that name a colour;
    ``context_kept``: place and style both, where named; ``psr``: share of the two, image by image.
    """
    kept = [row.kept for row in free if row.kept]
    transferred = [row.transferred for row in free if row.transferred is not None]
    return {
        "attribute_transfer": _rate(transferred),
        "context_kept": _rate(map(all, kept)),
        "psr": _mean([float(np.mean(own)) for own in kept]),
    }


def _collateral(rows: Sequence[ImageRow]) -> tuple[Interval | None, Interval | None]:
    """The worst phrase and the mean over phrases.

    A phrase's harm is the clean minus the edited rate of its own object, by noise; where it names
    no object ("beautiful") it is the drift of its images.
    """
    phrases: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        phrases[row.phrase].append(row)
    if not phrases:
        return None, None
    harms = {phrase: [_harm(row) for row in own] for phrase, own in phrases.items()}
    worst = max(phrases, key=lambda phrase: float(np.mean(harms[phrase])))
    own = phrases[worst]
    if own[0].expected is None:
        at_worst = _mean(harms[worst])
    else:
        at_worst = paired_rate_difference([row.clean_hit for row in own], [row.hit for row in own])
    values = [harm for own in harms.values() for harm in own]
    labels = [phrase for phrase, own in harms.items() for _ in own]
    return at_worst, over_pairs(values, labels)


def _harm(row: ImageRow) -> float:
    return row.drift if row.expected is None else float(row.clean_hit) - float(row.hit)


def _rate(outcomes: Iterable[bool]) -> Interval | None:
    found = list(outcomes)
    return wilson(sum(found), len(found)) if found else None


def _mean(values: Sequence[float]) -> Interval | None:
    if len(values) < 2:
        return _exact(values[0]) if values else None
    return bootstrap_mean(values)


def _exact(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, float("nan"), float("nan"), 1)


def entry(key: str, interval: Interval | None) -> Summary:
    """A metric's two keys, value and ``_ci``; None for what was not measured or has no width."""
    if interval is None:
        return {key: None, f"{key}_ci": None}
    bounds = interval.bounds if np.isfinite(interval.bounds).all() else None
    return {key: interval.value, f"{key}_ci": bounds}
