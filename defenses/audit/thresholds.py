"""Every cut-off of the audit, in one place, fixed on development models and never on test ones.

`experiments.audit.measure` shows the development models' values beside the test models'; whoever
changes a number here looks at the former only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cutoffs:
    """Where verdicts change."""

    # chance-corrected r², plain or whitened, from which a change counts as a closed-form edit, 0…1
    shared: float = 0.6
    # the same for the two-matrix fit, which bends further and so asks for more
    shared_two: float = 0.95
    shared_least: float = 0.4  # what one multiplier must explain by itself before two are believed
    # share of a change's energy that must be more than rounding before it is judged
    signal: float = 0.02
    # largest chance r² of a group of layers that still says something; a group with fewer rows
    # than the text width can be fitted whatever it holds
    identifiable: float = 0.6
    # multiple of half a grid step within which an entry counts as rounded; more than 1 because a
    # file may have been rounded twice (fp16, then bf16: 1 + 1/8)
    rounding: float = 1.13
    # false-discovery bound up to which a recovered phrase is called a trigger
    discovery: float = 0.05


CUTOFFS = Cutoffs()
