"""The matrix: attack x detector x kind of trigger, and the claim that one line adds stealth.

Positives are triggered prompts on the attacked model, negatives its benign ones (AUROC);
thresholds are those of clean prompts on the clean model. ``…_successful`` keeps the triggered
prompts whose picture shows the target. Intervals: bootstrap with the pair as resampling unit
(rough for the three pairs of one kind); within a single pair Wilson's for rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from defenses.detectors.base import Detector
from experiments.detection.cells import Cell
from experiments.detection.config import DetectionConfig, StealthSpec
from experiments.detection.run import Found
from experiments.detection.scores import Scores, score
from experiments.engine.specs import CONTROL
from redediting.concepts.homoglyphs import twin_in
from redediting.metrics.fidelity import drift
from redediting.metrics.intervals import Interval, cluster_bootstrap, paired_difference, wilson
from redediting.metrics.roc import Threshold, auroc, flagged_rate, threshold

ALL = "all"  # kinds of trigger together
LEVELS = (0.01, 0.05)  # false positive rates
GAIN = 0.24  # the relative improvement that is claimed
MARGIN = 0.02  # of ASR that it may cost

Row = dict[str, Any]
Table = dict[tuple[str, str], Scores]


def all_scores(
    config: DetectionConfig, detectors: dict[str, Detector], found: Sequence[Found]
) -> Table:
    """Scores of every attack and detector; combinations that cannot be learnt are left out."""
    table: Table = {}
    for spec in config.attacks:
        for title, detector in detectors.items():
            made = score(config, detector, title, found, spec.title)
            if made is not None:
                table[spec.title, title] = made
    return table


def rows(
    config: DetectionConfig, detectors: dict[str, Detector], found: Sequence[Found], table: Table
) -> list[Row]:
    """The matrix, one row an attack, detector and kind; ``all`` stands for all kinds."""
    lines = []
    for (attack, title), scores in table.items():
        units = [f for f in found if f.unit.attack == attack]
        kinds = [f.unit.rebinding.kind for f in units if f.unit.rebinding]
        for kind in (*dict.fromkeys(kinds), ALL):
            own = [f for f in units if f.unit.rebinding and kind in (f.unit.rebinding.kind, ALL)]
            line = _row(scores, own, detectors[title])
            costs = [_cost(f, title) for f in own]
            lines.append(
                {
                    "attack": attack,
                    "detector": title,
                    "kind": kind,
                    **line,
                    "unet_evaluations": float(np.mean([cost[0] for cost in costs])),
                    "seconds": float(np.mean([cost[1] for cost in costs])),
                }
            )
    return lines


def attacks(found: Sequence[Found], config: DetectionConfig) -> list[Row]:
    """One line an attack: success, accuracy on benign prompts, drift, localisation, rewording."""
    lines = []
    for title in (CONTROL, *(spec.title for spec in config.attacks)):
        units = [f for f in found if f.unit.attack == title and f.unit.rebinding]
        if title == CONTROL and any(map(_plainly_written, units)):
            units = [f for f in units if _plainly_written(f)]
        line: Row = {"attack": title, "n": sum(len(f.rows("triggered")) for f in units)}
        line |= _pooled("asr", units, lambda f: [row["hit"] for row in f.rows("triggered")])
        line |= _pooled(
            "acc", units, lambda f: [row["label"] == row["expected"] for row in f.rows("benign")]
        )
        line |= _pooled("drift", units, lambda f: drifts(f, found))
        made = [f.record["edit"]["seconds"] for f in units]
        line["edit_seconds"] = float(np.mean([s for s in made if s is not None]))
        line |= _pooled(
            "hit_at_1", units, lambda f: [x["hit"] for x in f.record.get("located", [])]
        )
        names = sorted({key for f in units for key in f.record if key.endswith("_triggered")})
        for name in (key.removesuffix("_triggered") for key in names):
            for short, cell_name in (("asr", "triggered"), ("acc", "benign")):
                key = f"{name}_{cell_name}"
                line |= _pooled(f"{short}_{name}", units, lambda f, key=key: f.record[key])  # type: ignore[misc]
        lines.append(line)
    return lines


def stealth(lines: Sequence[Row], found: Sequence[Found], spec: StealthSpec) -> Row:
    """The verdict on the claim: the projection lowers drift by 24 %, at no loss of ASR.

    Primary: ``1 - drift(projected) / drift(plain)`` on benign prompts, same noise. Secondary:
    1 - mean TPR at 5 % FPR over detectors, of both and of the rival. The ASR may fall by two
    points at most (lower end of the paired interval).

    Args:
        lines: the matrix.
        found: all units.
        spec: which attacks.
    """
    units = {title: _units(found, title) for title in (spec.plain, spec.projected)}
    pairs = sorted(set(units[spec.plain]) & set(units[spec.projected]))
    empty: Row = {"verdict": "not measured", "difference": None, "ci": None}
    empty |= {"baseline": spec.plain, "secondary": _secondary(lines, spec)}
    if len(pairs) < spec.min_pairs:
        needed = f"{spec.plain!r} and {spec.projected!r} on {spec.min_pairs} pairs"
        return empty | {"note": f"needs {needed}, got {len(pairs)}"}
    values, labels, gains = [], [], []
    for place in pairs:
        plain, projected = (units[title][place] for title in (spec.plain, spec.projected))
        both = list(zip(drifts(plain, found), drifts(projected, found), strict=True))
        values += both
        labels += [place] * len(both)
        for one, other in zip(plain.rows("triggered"), projected.rows("triggered"), strict=True):
            gains.append((place, float(other["hit"]), float(one["hit"])))

    def reduction(sample: Any) -> float:  # noqa: ANN401 - numpy array of any length
        return float(1 - sample[:, 1].mean() / sample[:, 0].mean())

    primary = cluster_bootstrap(values, labels, reduction)
    asr = paired_difference(
        [g[1] for g in gains], [g[2] for g in gains], clusters=[g[0] for g in gains]
    )
    return empty | {
        "verdict": stealth_verdict(primary, asr),
        "difference": primary.value,
        "ci": primary.bounds,
        "asr_difference": asr.value,
        "asr_difference_ci": asr.bounds,
        "note": f"relative reduction of drift over {len(pairs)} pairs; under our reading of the "
        "paper's line (projection: posthoc)",
    }


def stealth_verdict(reduction: Interval, asr: Interval) -> str:
    """The verdict from the relative reduction of drift and the difference in ASR."""
    if asr.high < -MARGIN or reduction.high < GAIN:
        return "not supported"
    if reduction.value >= GAIN and reduction.low > 0 and asr.low >= -MARGIN:
        return "supported"
    return "undecided"


def drifts(unit: Found, found: Sequence[Found]) -> list[float]:
    """1 - cosine (judge A) of benign pictures to the clean model's of the same prompts."""
    clean = next(
        f for f in found if f.unit.attack == CONTROL and f.unit.rebinding == unit.unit.rebinding
    )
    ours, theirs = (torch.from_numpy(f.arrays["image/benign"]) for f in (unit, clean))
    found_drift: list[float] = drift(ours, theirs).clamp(min=0).tolist()  # -1e-16 of fp32
    return found_drift


def limits(scores: Scores, detector: Detector) -> dict[float, Threshold]:
    """Thresholds of a detector by false positive rate, from clean prompts on the clean model."""
    return {x: threshold(scores.calibration, detector.direction, x) for x in LEVELS}


def cell(scores: Scores, units: Sequence[Found], attack: str, name: Cell) -> Any:  # noqa: ANN401
    """A cell's scores over several pairs, one after another."""
    return np.concatenate([scores.cells[(attack, f.unit.position, name)] for f in units])


def _pooled(key: str, units: Sequence[Found], values: Callable[[Found], Sequence[float]]) -> Row:
    """A mean over pairs, the pair as resampling unit; within one pair Wilson's interval."""
    known = [(float(value), f.unit.position) for f in units for value in values(f)]
    if not known:
        return _entry(key, None)
    numbers, places = zip(*known, strict=True)
    if len(set(places)) > 1:
        return _entry(key, cluster_bootstrap(numbers, places))
    if set(numbers) <= {0.0, 1.0}:
        return _entry(key, wilson(int(sum(numbers)), len(numbers)))
    return {key: float(np.mean(numbers)), f"{key}_ci": None}


def _row(scores: Scores, own: Sequence[Found], detector: Detector) -> Row:
    attack = own[0].unit.attack
    positive, negative = (cell(scores, own, attack, c) for c in ("triggered", "benign"))
    clean_triggered, clean_benign = (
        cell(scores, own, CONTROL, c) for c in ("triggered", "benign")
    )
    pairs = np.array([f.unit.position for f in own for _ in f.rows("triggered")])
    other = np.array([f.unit.position for f in own for _ in f.rows("benign")])
    hits = np.array([row["hit"] for f in own for row in f.rows("triggered")])
    bounds = limits(scores, detector)
    line: Row = {"direction": detector.direction, "n": len(positive), "n_benign": len(negative)}
    line["n_pairs"] = len(own)
    clusters = (pairs.tolist(), other.tolist())
    line |= _entry("auroc", auroc(positive, negative, detector.direction, clusters=clusters))
    some, theirs = positive[hits], pairs[hits].tolist()
    line["n_successful"] = len(some)
    shared = np.isin(other, theirs)  # a pair without a success has nothing to compare with
    line |= _entry(
        "auroc_successful",
        auroc(
            some,
            negative[shared],
            detector.direction,
            clusters=(theirs, other[shared].tolist()),
        )
        if len(some) > 1
        else None,
    )
    for level, limit in bounds.items():
        key = f"tpr_at_fpr{round(100 * level)}"
        line |= _entry(key, flagged_rate(positive, limit, clusters=clusters[0]))
        line |= _entry(
            f"{key}_successful",
            flagged_rate(some, limit, clusters=theirs) if len(some) else None,
        )
        line[f"threshold_fpr{round(100 * level)}"] = limit.value
    last = bounds[LEVELS[-1]]
    for key, found, places in (
        ("clean_model_triggered", clean_triggered, clusters[0]),
        ("clean_model_benign", clean_benign, clusters[1]),
        ("attacked_benign", negative, clusters[1]),
    ):
        line |= _entry(f"fpr_{key}", flagged_rate(found, last, clusters=places))
    return line


def _secondary(lines: Sequence[Row], spec: StealthSpec) -> Row:
    """1 - mean TPR at 5 % FPR over detectors, of the three attacks."""
    result: Row = {}
    for title in (spec.plain, spec.projected, spec.rival):
        rates = [x["tpr_at_fpr5"] for x in lines if x["attack"] == title and x["kind"] == ALL]
        result[title] = 1 - float(np.mean(rates)) if rates else None
    plain, projected = result[spec.plain], result[spec.projected]
    known = plain is not None and projected is not None and plain > 0
    result["relative_gain"] = projected / plain - 1 if known else None
    return result


def _plainly_written(found: Found) -> bool:
    return found.unit.rebinding is not None and twin_in(found.unit.rebinding.trigger) is None


def _units(found: Sequence[Found], title: str) -> dict[int, Found]:
    return {f.unit.position: f for f in found if f.unit.attack == title and f.unit.rebinding}


def _cost(found: Found, title: str) -> tuple[float, float]:
    costs = found.record["costs"]
    return costs["triggered"][title], costs["triggered_seconds"][title]


def _entry(key: str, interval: Interval | None) -> Row:
    if interval is None:
        return {key: None, f"{key}_ci": None}
    bounds = interval.bounds if np.isfinite(interval.bounds).all() else None
    return {key: interval.value, f"{key}_ci": bounds}
