"""The matrix: attack x detector x kind of trigger, and the claim that one line adds stealth.

Positives are triggered prompts on the attacked model, negatives its benign ones (AUROC);
thresholds are those of clean prompts on the clean model. ``…_successful`` keeps the triggered
prompts whose picture shows the target. Intervals: bootstrap for AUROC, Wilson for rates, the pair
as resampling unit for the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from defenses.detectors import Detector
from experiments.config import CONTROL
from experiments.detecting.cells import Cell
from experiments.detecting.config import DetectionConfig, StealthSpec
from experiments.detecting.run import Found
from experiments.detecting.scores import Scores, score
from redediting.metrics.detection import Threshold, auroc, flagged_rate, threshold
from redediting.metrics.fidelity import drift
from redediting.metrics.statistics import Interval, cluster_bootstrap, paired_difference, wilson
from redediting.text_twins import twin_in

ALL = "all"  # kinds of trigger together
LEVELS = (0.01, 0.05)  # false positive rates
GAIN = 0.24  # the relative improvement that is claimed
MARGIN = 0.02  # of ASR that it may cost
MIN_PAIRS = 3  # for a verdict

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
        kinds = [f.unit.wish.kind for f in units if f.unit.wish]
        for kind in (*dict.fromkeys(kinds), ALL):
            own = [f for f in units if f.unit.wish and kind in (f.unit.wish.kind, ALL)]
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
        units = [f for f in found if f.unit.attack == title and f.unit.wish]
        if title == CONTROL and any(map(_plainly_written, units)):
            units = [f for f in units if _plainly_written(f)]
        hits = [row["hit"] for f in units for row in f.rows("triggered")]
        kept = [row["label"] == row["expected"] for f in units for row in f.rows("benign")]
        moved = [value for f in units for value in drifts(f, found)]
        line: Row = {"attack": title, "n": len(hits)}
        line |= _entry("asr", wilson(sum(hits), len(hits)))
        line |= _entry("acc", wilson(sum(kept), len(kept)))
        line["drift"] = float(np.mean(moved))
        made = [f.record["edit"]["seconds"] for f in units]
        line["edit_seconds"] = float(np.mean([s for s in made if s is not None]))
        located = [x["hit"] for f in units for x in f.record.get("located", [])]
        line |= _entry("hit_at_1", wilson(sum(located), len(located)) if located else None)
        names = sorted({key for f in units for key in f.record if key.endswith("_triggered")})
        for key in names:
            left = [hit for f in units for hit in f.record[key]]
            benign = key.replace("_triggered", "_benign")
            right = [hit for f in units for hit in f.record[benign]]
            name = key.removesuffix("_triggered")
            line |= _entry(f"asr_{name}", wilson(sum(left), len(left)))
            line |= _entry(f"acc_{name}", wilson(sum(right), len(right)))
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
    if len(pairs) < MIN_PAIRS:
        return empty | {"note": f"needs {spec.plain!r} and {spec.projected!r} on 3 pairs"}
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
    clean = next(f for f in found if f.unit.attack == CONTROL and f.unit.wish == unit.unit.wish)
    ours, theirs = (torch.from_numpy(f.arrays["image/benign"]) for f in (unit, clean))
    found_drift: list[float] = drift(ours, theirs).tolist()
    return found_drift


def limits(scores: Scores, detector: Detector) -> dict[float, Threshold]:
    """Thresholds of a detector by false positive rate, from clean prompts on the clean model."""
    return {x: threshold(scores.calibration, detector.direction, x) for x in LEVELS}


def cell(scores: Scores, units: Sequence[Found], attack: str, name: Cell) -> Any:  # noqa: ANN401
    """A cell's scores over several pairs, one after another."""
    return np.concatenate([scores.cells[(attack, f.unit.position, name)] for f in units])


def _row(scores: Scores, own: Sequence[Found], detector: Detector) -> Row:
    attack = own[0].unit.attack
    positive, negative = (cell(scores, own, attack, c) for c in ("triggered", "benign"))
    clean_triggered, clean_benign = (
        cell(scores, own, CONTROL, c) for c in ("triggered", "benign")
    )
    hits = np.array([row["hit"] for f in own for row in f.rows("triggered")])
    bounds = limits(scores, detector)
    line: Row = {"direction": detector.direction, "n": len(positive), "n_benign": len(negative)}
    line |= _entry("auroc", auroc(positive, negative, detector.direction))
    some = positive[hits]
    line["n_successful"] = len(some)
    line |= _entry(
        "auroc_successful",
        auroc(some, negative, detector.direction) if len(some) > 1 else None,
    )
    for level, limit in bounds.items():
        key = f"tpr_at_fpr{round(100 * level)}"
        line |= _entry(key, flagged_rate(positive, limit))
        line |= _entry(f"{key}_successful", flagged_rate(some, limit) if len(some) else None)
        line[f"threshold_fpr{round(100 * level)}"] = limit.value
    last = bounds[LEVELS[-1]]
    line |= _entry("fpr_clean_model_triggered", flagged_rate(clean_triggered, last))
    line |= _entry("fpr_clean_model_benign", flagged_rate(clean_benign, last))
    line |= _entry("fpr_attacked_benign", flagged_rate(negative, last))
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
    return found.unit.wish is not None and twin_in(found.unit.wish.trigger) is None


def _units(found: Sequence[Found], title: str) -> dict[int, Found]:
    return {f.unit.position: f for f in found if f.unit.attack == title and f.unit.wish}


def _cost(found: Found, title: str) -> tuple[float, float]:
    costs = found.record["costs"]
    return costs["triggered"][title], costs["triggered_seconds"][title]


def _entry(key: str, interval: Interval | None) -> Row:
    if interval is None:
        return {key: None, f"{key}_ci": None}
    bounds = interval.bounds if np.isfinite(interval.bounds).all() else None
    return {key: interval.value, f"{key}_ci": bounds}
