"""Settings ranked on text states alone, before any image is drawn.

A setting is *kept* when it fires on held-out contexts (5th percentile at least 0.9) and phrases
near the trigger do not (95th percentile of |firing| at most 0.3). Among kept settings the least
expected drift ``tr(MΣ₀MᵀG) / tr(Σ₀G)`` comes first; the others follow by what they lack. Images
then confirm the first few.

References:
    The project's method notes, §6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

from torch import Tensor

from redediting.algebra.diagnostics import gram
from redediting.algebra.layers import mean_multiplier
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.evaluation.inspection import firings
from redediting.models.model import Model

FIRES = 0.9
QUIET = 0.3


@dataclass(frozen=True)
class Foresight:
    """What a solved edit promises."""

    firing: float  # 5th percentile over held-out contexts of the trigger, 1 is on the target
    probe_firing: float  # 95th percentile of |firing| over phrases near the trigger
    drift: float  # expected relative squared change of what ordinary captions read

    @property
    def lack(self) -> float:
        """By how much the two bars are missed together; 0 where both are met."""
        return max(0.0, FIRES - self.firing) + max(0.0, self.probe_firing - QUIET)


def foresee(
    model: Model,
    method: ClosedForm,
    rebinding: Rebinding,
    *,
    moment: Tensor,
    templates: Sequence[str],
) -> Foresight:
    """Solves an edit and measures it on text states; the model is not changed.

    ``moment`` is ``Σ₀`` of ordinary captions, shape ``(d, d)``; ``templates`` are contexts of the
    ``dev`` split. `MethodError` for hyper-parameters with which the problem has no solution.
    """
    weights = model.weights()
    metric = gram(weights.values())
    edit = method.edit(model, method.plans(model, [rebinding]))
    multiplier = mean_multiplier(edit, weights)
    fired, wrong = firings(model, rebinding, multiplier, metric, templates)
    change = multiplier.matrix()
    drift = (metric * (change @ moment @ change.T)).sum() / (metric * moment).sum()
    return Foresight(float(fired.quantile(0.05)), float(wrong.quantile(0.95)), float(drift))


def mean_foresight(found: Sequence[Foresight]) -> Foresight:
    """Mean over pairs."""
    return Foresight(*map(fmean, zip(*map(astuple, found), strict=True)))


def ranked(settings: Mapping[str, Foresight]) -> list[str]:
    """Names of settings, best first."""
    return sorted(settings, key=lambda name: (settings[name].lack, settings[name].drift))
