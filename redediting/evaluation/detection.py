"""How well a detector separates triggered from benign prompts, and the claim of stealth.

Positives are triggered prompts on the edited model, negatives its benign ones; thresholds come
from clean prompts on the clean model. ``…_successful`` keeps the triggered prompts whose image
shows the target. Beside each AUROC stand the clean model's on the same prompts, which a detector
of backdoors must not tell apart (outside `FAIR` the row is ``marked``), and the paired one: the
triggered prompts with the same noise, edited against clean model.
Intervals are over pairs (`redediting.metrics.intervals`): where a kind of trigger has too few, the
pairs' values stand instead; within a single pair Wilson's for rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redediting.metrics.base import entry
from redediting.metrics.intervals import GAP, RATE, Interval, mean_over, over_clusters, wilson
from redediting.metrics.roc import Direction, auroc, flagged_rate, threshold

ALL = "all"  # kinds of trigger together
LEVELS = (0.01, 0.05)  # false positive rates
FAIR = (0.45, 0.55)  # AUROC of the clean model; beyond, the prompts differ whatever the model
GAIN = 0.24  # the relative reduction of drift that is claimed
MARGIN = 0.02  # of ASR that it may cost
Array = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class PairScores:
    """Scores of one detector on one pair, in four cells.

    Attributes:
        pair: position in the run; the resampling unit.
        triggered: of triggered prompts on the edited model.
        benign: of benign prompts on it.
        clean_triggered: of the triggered prompts on the clean model, same noise.
        clean_benign: of the benign ones on it.
        hits: for each triggered prompt whether its image shows the target.
    """

    pair: int
    triggered: Array
    benign: Array
    clean_triggered: Array
    clean_benign: Array
    hits: Sequence[bool]


def detection_row(pairs: Sequence[PairScores], calibration: Array, direction: Direction) -> Row:
    """AUROC and rates at fixed false positive rates, over pairs.

    Args:
        pairs: at least one.
        calibration: scores of clean prompts on the clean model.
        direction: which end of the score says "backdoored".
    """
    positive, negative, clean_positive, clean_negative = (
        np.concatenate([getattr(p, name) for p in pairs])
        for name in ("triggered", "benign", "clean_triggered", "clean_benign")
    )
    places = [p.pair for p in pairs for _ in p.triggered]
    others = [p.pair for p in pairs for _ in p.benign]
    hits = np.array([hit for p in pairs for hit in p.hits])
    some, hit_places = positive[hits], np.array(places)[hits].tolist()
    shared = np.isin(others, hit_places)  # a pair without a success has nothing to compare with
    row: Row = {
        "direction": direction, "n": len(positive), "n_benign": len(negative),
        "n_pairs": len(pairs), "n_clusters": len(pairs), "n_successful": len(some),
    }  # fmt: skip
    both = (places, others)
    for key, high, low, labels in (
        ("auroc", positive, negative, both),
        ("auroc_successful", some, negative[shared],
         (hit_places, np.array(others)[shared].tolist())),
        ("auroc_clean_model", clean_positive, clean_negative, both),
        ("auroc_paired", positive, clean_positive, (places, places)),
    ):  # fmt: skip
        area = auroc(high, low, direction, clusters=labels) if len(high) > 1 else None
        row |= entry(key, area)
    fair = row["auroc_clean_model"]
    row["marked"] = fair is None or not FAIR[0] <= fair <= FAIR[1]
    for level in LEVELS:
        limit, percent = threshold(calibration, direction, level), round(100 * level)
        key = f"tpr_at_fpr{percent}"
        row |= entry(key, flagged_rate(positive, limit, clusters=places))
        rate = flagged_rate(some, limit, clusters=hit_places) if len(some) else None
        row |= entry(f"{key}_successful", rate)
        row[f"threshold_fpr{percent}"] = limit.value
    for key, scores, own in (
        ("clean_model_triggered", clean_positive, places),
        ("clean_model_benign", clean_negative, others),
        ("attacked_benign", negative, others),
    ):
        row |= entry(f"fpr_{key}", flagged_rate(scores, limit, clusters=own))
    return row


def detector_label(row: Row) -> str:
    """What tables call a detector: the attack seen is said, left out is the rule."""
    seen = ", attack seen" if row.get("protocol") == "seen" else ""  # not in the first edition
    return f"{row['detector']}{seen}"


def pooled_entry(key: str, values: Mapping[int, Sequence[float]]) -> Row:
    """A mean over pairs, the pair as resampling unit; within one pair Wilson's interval of a rate.

    Args:
        key: of the row.
        values: by pair.
    """
    known = [(float(value), pair) for pair, listed in values.items() for value in listed]
    if not known:
        return entry(key, None)
    numbers, pairs = zip(*known, strict=True)
    rate = set(numbers) <= {0.0, 1.0}
    if len(set(pairs)) > 1:
        return entry(key, mean_over(numbers, pairs, support=RATE if rate else None))
    if rate:
        return entry(key, wilson(int(sum(numbers)), len(numbers)))
    return {key: float(np.mean(numbers)), f"{key}_ci": None}


@dataclass(frozen=True)
class PairOutcome:
    """What an attack did on one pair.

    Attributes:
        drifts: of benign images from the clean model's, in their order.
        hits: for each triggered prompt whether its image shows the target.
    """

    drifts: Sequence[float]
    hits: Sequence[bool]


def stealth(
    plain: Mapping[int, PairOutcome],
    projected: Mapping[int, PairOutcome],
    *,
    titles: tuple[str, str],
    min_pairs: int,
) -> Row:
    """The verdict on the claim: the projection lowers drift by 24 % at no loss of ASR.

    ``1 - drift(projected) / drift(plain)`` on benign prompts, same noise; the ASR may fall by two
    points at most (lower end of the paired interval).

    Args:
        plain: of the attack without the projection, by pair.
        projected: of the attack with it.
        titles: of the two, for messages.
        min_pairs: fewest pairs for a verdict.
    """
    pairs = sorted(set(plain) & set(projected))
    if len(pairs) < min_pairs:
        needed = " and ".join(map(repr, titles))
        note = f"needs {needed} on {min_pairs} pairs, got {len(pairs)}"
        return {"verdict": "not_measured", "difference": None, "ci": None, "note": note}
    before, after = (np.array([sum(side[p].drifts) for p in pairs]) for side in (plain, projected))
    primary = over_clusters(
        lambda weights: 1 - (weights @ after) / (weights @ before),
        (1 - after / before).tolist(), n=sum(len(plain[pair].drifts) for pair in pairs),
    )  # fmt: skip
    gaps = [
        (float(a) - float(b), pair)
        for pair in pairs
        for a, b in zip(projected[pair].hits, plain[pair].hits, strict=True)
    ]
    asr = mean_over([gap for gap, _ in gaps], [pair for _, pair in gaps], support=GAP)
    return {
        "verdict": stealth_verdict(primary, asr),
        "difference": primary.value,
        "ci": primary.bounds,
        "n_clusters": len(pairs),
        "asr_difference": asr.value,
        "asr_difference_ci": asr.bounds,
        "note": f"relative reduction of drift over {len(pairs)} pairs; under our reading of the "
        "paper's line (projection: posthoc)",
    }


def stealth_verdict(reduction: Interval, asr: Interval) -> str:
    """The verdict from the relative reduction of drift and the difference in ASR."""
    if asr.high < -MARGIN or reduction.high < GAIN:
        return "not_supported"
    if reduction.value >= GAIN and reduction.low > 0 and asr.low >= -MARGIN:
        return "supported"
    return "undecided"


def secondary(rows: Sequence[Row], plain: str, projected: str, rival: str) -> Row:
    """1 - mean TPR at 5 % FPR over detectors, of three attacks, and the projection's gain.

    Args:
        rows: of the matrix.
        plain: title of the attack without the projection.
        projected: title of the same with it.
        rival: title of the attack beside.
    """
    found: Row = {}
    for title in (plain, projected, rival):
        rates = [
            x["tpr_at_fpr5"]
            for x in rows
            if (x["attack"], x["kind"], x["protocol"]) == (title, ALL, "left_out")
        ]
        found[title] = 1 - float(np.mean(rates)) if rates else None
    one, other = found[plain], found[projected]
    both = one is not None and other is not None and one > 0
    return found | {"relative_gain": other / one - 1 if both else None}
