"""From features to scores and thresholds; detectors that learn are fitted here.

Detectors that learn from clean prompts are fitted on the first half of the calibration prompts and
take their threshold from the second. Supervised ones are fitted on the same half and on the benign
and triggered prompts of *other* pairs: of the same attack (``seen``, the published protocol and
the positive control of an implementation), or of other methods (``left_out``). They are fitted
once a pair; their scores are standardised by the held-out clean prompts, to be comparable.

A score that is NaN or infinite is an error that names detector and prompt, never a score that is
not flagged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from defenses.detectors.base import Array, Detector, Scorer, check_finite
from redediting.evaluation.entries import CONTROL

Protocol = Literal["seen", "left_out"]


@dataclass(frozen=True)
class Group:
    """A detector's features on one model and pair.

    Attributes:
        attack: title; ``clean`` for the clean model.
        method: of the attack, whatever its options.
        trigger: names the pair with its trigger as written.
        pair: position of the pair in the run.
        features: by cell (``benign``, ``triggered``), shape ``(n, k)``.
        prompts: by cell, for messages.
    """

    attack: str
    method: str
    trigger: str
    pair: int
    features: Mapping[str, Array]
    prompts: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Scores:
    """Scores of one detector against one attack.

    Attributes:
        calibration: of held-out clean prompts on the clean model; thresholds come from these.
        cells: by (attack or ``clean``, pair, cell).
    """

    calibration: Array
    cells: Mapping[tuple[str, int, str], Array]


def protocols(detector: Detector) -> tuple[Protocol, ...]:
    """In how many ways a detector is fitted; one that needs no labels never sees the attack."""
    return ("seen", "left_out") if detector.learns == "labelled" else ("left_out",)


def score(
    detector: Detector,
    clean: Array,
    groups: Sequence[Group],
    attack: str,
    prompts: Sequence[str],
    protocol: Protocol = "left_out",
) -> Scores | None:
    """Scores an attack's groups and the clean model's on the same triggers.

    Args:
        detector: whose features.
        clean: of calibration prompts on the clean model, shape ``(n, k)``.
        groups: of all attacks and of the clean model.
        attack: title of the one judged.
        prompts: of the calibration, n, for messages.
        protocol: whether a supervised detector learns from the attack, on other pairs.

    Returns:
        The scores; None for a supervised detector without a group to learn from.

    Raises:
        DetectorError: a score that is not finite.
    """
    half = 0 if detector.learns == "nothing" else len(clean) // 2
    triggers = {group.trigger for group in groups if group.attack == attack}
    judged = [g for g in groups if g.trigger in triggers and g.attack in (attack, CONTROL)]
    pairs = sorted({group.pair for group in judged})
    scorers: dict[int, Scorer] = {}
    if detector.learns == "labelled":
        method = next(group.method for group in groups if group.attack == attack)
        for pair in pairs:
            others = [
                g for g in groups
                if g.attack != CONTROL and g.pair != pair
                and (g.attack == attack if protocol == "seen" else g.method != method)
            ]  # fmt: skip
            if not others:
                return None
            benign, triggered = (
                np.concatenate([group.features[cell] for group in others])
                for cell in ("benign", "triggered")
            )
            scorer = detector.learn(np.concatenate([clean[:half], benign]), triggered)
            scorers[pair] = _standardised(scorer, clean[half:])
    else:
        scorers = dict.fromkeys(pairs, detector.learn(clean[:half]))
    cells = {}
    for group in judged:
        for cell, features in group.features.items():
            scores = scorers[group.pair](features)
            check_finite(detector.name, scores, group.prompts[cell])
            cells[group.attack, group.pair, cell] = scores
    held = []
    for scorer in {id(scorer): scorer for scorer in scorers.values()}.values():
        held.append(scorer(clean[half:]))
        check_finite(detector.name, held[-1], prompts[half:])
    return Scores(np.concatenate(held), cells)


def _standardised(scorer: Scorer, clean: Array) -> Scorer:
    known = scorer(clean)
    middle, spread = float(known.mean()), float(known.std()) or 1.0
    return lambda features: (scorer(features) - middle) / spread
