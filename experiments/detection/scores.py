"""From features to scores: detectors that learn are fitted here, on nothing that they judge.

One-class detectors learn from the first half of the calibration prompts and take their threshold
from the second. Supervised ones learn from the same half and from the benign and triggered prompts
of *other* attacks on *other* pairs: an attack's own method is left out, whatever its options, and
so is the pair, or the discriminant could know the trigger by its words. There is a fit for each
pair; scores are standardised by the held-out clean prompts, to be comparable between fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from defenses.detectors.base import Array, Detector, Scorer
from experiments.detection.cells import Cell
from experiments.detection.config import DetectionConfig
from experiments.detection.run import Found
from experiments.engine.specs import CONTROL


@dataclass(frozen=True)
class Scores:
    """Scores of one detector against one attack.

    Attributes:
        calibration: of clean prompts on the clean model; thresholds come from these.
        cells: by (attack or ``clean``, pair's position, cell).
    """

    calibration: Array
    cells: Mapping[tuple[str, int, Cell], Array]


def score(
    config: DetectionConfig, detector: Detector, title: str, found: Sequence[Found], attack: str
) -> Scores | None:
    """Scores of a detector where an attack is judged.

    Args:
        config: of the run.
        detector: whose features.
        title: under which the run kept them.
        found: all units.
        attack: the one judged; the clean model is scored on the same triggers.

    Returns:
        The scores; None for a supervised detector without another attack or pair to learn from.
    """
    clean = np.concatenate(
        [_features(f, title, "calibration") for f in found if not f.unit.rebinding]
    )
    half = 0 if detector.learns == "nothing" else len(clean) // 2
    rebindings = {f.unit.rebinding for f in found if f.unit.attack == attack}
    judged = [
        f for f in found if f.unit.rebinding in rebindings and f.unit.attack in (attack, CONTROL)
    ]
    places = sorted({f.unit.position for f in judged})
    scorers: dict[int, Scorer] = {}
    if detector.learns == "labelled":
        for place in places:
            examples = _examples(config, title, found, attack, place)
            if examples is None:
                return None
            scorer = detector.learn(np.concatenate([clean[:half], examples[0]]), examples[1])
            scorers[place] = _standardised(scorer, clean[half:])
    else:
        scorers = dict.fromkeys(places, detector.learn(clean[:half]))
    cells: dict[tuple[str, int, Cell], Array] = {}
    cell: Cell
    for f in judged:
        for cell in ("benign", "triggered"):
            own = scorers[f.unit.position](_features(f, title, cell))
            cells[f.unit.attack, f.unit.position, cell] = own
    fits = list({id(scorer): scorer for scorer in scorers.values()}.values())
    return Scores(np.concatenate([scorer(clean[half:]) for scorer in fits]), cells)


def _examples(
    config: DetectionConfig, title: str, found: Sequence[Found], attack: str, place: int
) -> tuple[Array, Array] | None:
    """Benign and triggered features of attacks by other methods on other pairs."""
    names = {spec.title: spec.name for spec in config.attacks}
    others = [
        f
        for f in found
        if f.unit.attack != CONTROL
        and names[f.unit.attack] != names[attack]
        and f.unit.position != place
    ]
    if not others:
        return None
    benign, triggered = (
        np.concatenate([_features(f, title, cell) for f in others])
        for cell in ("benign", "triggered")
    )
    return benign, triggered


def _features(found: Found, title: str, cell: str) -> Array:
    return found.arrays[f"{title}/{cell}"].astype(np.float64)


def _standardised(scorer: Scorer, clean: Array) -> Scorer:
    known = scorer(clean)
    middle, spread = float(known.mean()), float(known.std()) or 1.0
    return lambda features: (scorer(features) - middle) / spread
