"""The paper's claims, put to a test that can come out against it.

Thresholds and verdicts are fixed by the project's protocol, before any run: ``supported``,
``not supported``, ``ceiling``, ``undecided``, and ``not measured`` where the data do not suffice.

References:
    REDEditing, arXiv 2504.14554: "+11 % ASR over the state of the art", "+24 % stealthiness".
    EvilEdit (MM'24), table of attacks: Rickrolling, the quickest trained attack there, takes 64 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from redediting.config import Config
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.summary import Summary
from redediting.evaluation.tradeoff import isolation
from redediting.metrics.intervals import Interval, cluster_bootstrap

MARGIN = 0.11  # the improvement in ASR that is claimed
CEILING = 0.89  # above it no improvement of that size is possible
INFERIOR = 0.02  # of ASR: what the projection may lose
TRAINED_SECONDS = 64.0  # what the quickest trained attack needs

Claim = dict[str, Any]


class ClaimSpec(Config):
    """What the claims are tested with; the thresholds are fixed by the protocol.

    Attributes:
        ours: title of the method whose claims are tested.
        baseline: title of the best baseline, as chosen on development pairs; None takes the best
            one on the very pairs tested, which favours the baseline.
        posthoc: title of the same method with the spectral projection after the solve.
        inside: title of the same method with the projection inside the problem.
        min_pairs: fewest pairs for a verdict.
    """

    ours: str = "redediting"
    baseline: str | None = None
    posthoc: str = "redediting-posthoc"
    inside: str = "redediting-inside"
    min_pairs: int = Field(default=6, ge=2)


def claims(
    rows: Sequence[Summary],
    controls: Sequence[str],
    spec: ClaimSpec,
    *,
    families: Mapping[str, Sequence[str]] | None = None,
    variants: Sequence[str] = (),
    natural: Mapping[str, Interval] | None = None,
) -> dict[str, Claim]:
    """Returns the verdict on each claim.

    Args:
        rows: of `redediting.evaluation.summary.summary_rows`.
        controls: titles of sources that change nothing.
        spec: whose claims, against what.
        families: settings of each method by its title (`AttackConfig.families`).
        variants: titles of other forms of our method, which are no baselines.
        natural: CMMD of triggered images without the projection minus that with it, by title of
            the form with it: positive where the projection makes images more natural.
    """
    values = _by_method(rows, "asr_free")
    families = families or {title: [title] for title in values}
    swept = {title for name, own in families.items() for title in own if title != name}
    left_out = {*controls, CONTROL, spec.ours, spec.posthoc, spec.inside, *variants, *swept}
    others = [method for method in values if method not in left_out]
    baseline, chosen = _baseline(values, others, spec)
    rivals = {name: own for name, own in families.items() if name not in left_out - {spec.ours}}
    return {
        "asr": _asr(values, spec, baseline, chosen, others),
        "stealth": _open("needs detectors beside drift; measured by the detection experiment"),
        "isolation": isolation(
            rows,
            rivals,
            ours=spec.ours,
            control=next(iter(controls), CONTROL),
            min_pairs=spec.min_pairs,
        ),
        "naturalness": _naturalness(values, spec, natural or {}),
        "training_free": _training_free(rows, spec, baseline),
    }


def naturalness_verdict(gain: Interval, asr: Interval) -> str:
    """Returns the verdict on the projection.

    Args:
        gain: CMMD to natural images of the target, without minus with the projection.
        asr: ASR(free) with minus without it, -1…1.
    """
    if gain.high <= 0 or asr.high < -INFERIOR:
        return "not supported"
    if gain.low > 0 and asr.low > -INFERIOR:
        return "supported"
    return "undecided"


def asr_verdict(difference: Interval, baseline: float) -> str:
    """Returns the verdict on the ASR claim.

    Args:
        difference: ASR(free) of the method minus the baseline's, -1…1, with its 95 % interval.
        baseline: the baseline's ASR(free), 0…1.
    """
    if baseline > CEILING:
        return "ceiling"
    if difference.value >= MARGIN and difference.low > 0:
        return "supported"
    if difference.high < MARGIN:
        return "not supported"
    return "undecided"


def _asr(
    values: Mapping[str, Mapping[object, float]],
    spec: ClaimSpec,
    baseline: str | None,
    chosen: str,
    others: Sequence[str],
) -> Claim:
    """The verdict against one baseline, and the difference to each (``against``)."""
    if spec.ours not in values or baseline is None:
        return _open(f"needs {spec.ours!r} and a baseline", baseline)
    gains = {name: _gains(values, spec.ours, name) for name in (baseline, *others)}
    found, pairs = gains[baseline]
    if len(set(pairs)) < 2:
        difference = float(np.mean(found)) if found else None
        return _open("needs more pairs", baseline) | {"difference": difference}
    against = {
        name: cluster_bootstrap(own, labels)
        for name, (own, labels) in gains.items()
        if len(set(labels)) > 1
    }
    interval = against[baseline]
    nearest = min(against, key=lambda name: against[name].value)
    if nearest != baseline:
        least = against[nearest]
        chosen += f"; least difference {least.value:+.3f}{_span(least, '+.3f')}, to {nearest}"
    enough = len(set(pairs)) >= spec.min_pairs
    theirs = float(np.mean(list(values[baseline].values())))
    return {
        "verdict": asr_verdict(interval, theirs) if enough else "not measured",
        "difference": interval.value,
        "ci": interval.bounds,
        "baseline": baseline,
        "against": {name: {"difference": x.value, "ci": x.bounds} for name, x in against.items()},
        "note": chosen if enough else f"needs at least {spec.min_pairs} pairs; {chosen}",
    }


def _gains(
    values: Mapping[str, Mapping[object, float]], ours: str, other: str
) -> tuple[list[float], list[str]]:
    """Differences on the units that both have, and their pairs."""
    keys = [key for key in values[ours] if key in values[other]]
    gains = [values[ours][key] - values[other][key] for key in keys]
    return gains, [str(key[:2]) for key in keys if isinstance(key, tuple)]


def _naturalness(
    values: Mapping[str, Mapping[object, float]],
    spec: ClaimSpec,
    natural: Mapping[str, Interval],
) -> Claim:
    """The one-line projection against none; the projection inside the problem beside it."""
    found: dict[str, tuple[Interval, Interval]] = {}
    for title in (spec.posthoc, spec.inside):
        if title in natural and title in values and spec.ours in values:
            losses, pairs = _gains(values, title, spec.ours)
            if len(set(pairs)) >= max(2, spec.min_pairs):
                found[title] = (natural[title], cluster_bootstrap(losses, pairs))
    if spec.posthoc not in found:
        needs = f"{spec.ours!r} and {spec.posthoc!r} on at least {spec.min_pairs} pairs"
        return _open(f"needs {needs}", spec.ours)
    gain, _ = found[spec.posthoc]
    said = [
        f"{title}: CMMD better by {gain.value:+.2f}{_span(gain, '+.2f')}, ASR {loss.value:+.3f}"
        f"{_span(loss, '+.3f')}, {naturalness_verdict(gain, loss)}"
        for title, (gain, loss) in found.items()
    ]
    return {
        "verdict": naturalness_verdict(*found[spec.posthoc]),
        "difference": gain.value,
        "ci": gain.bounds,
        "baseline": spec.ours,
        "note": (
            "under our reading of the paper's one line; CMMD of triggered images to the clean "
            f"model's of the target prompts; ASR may lose {INFERIOR:.0%}; " + "; ".join(said)
        ),
    }


def _span(interval: Interval, form: str) -> str:
    return f" ({interval.low:{form}} … {interval.high:{form}})"


def _training_free(rows: Sequence[Summary], spec: ClaimSpec, baseline: str | None) -> Claim:
    """Supported when every edit, made without images or gradient steps, beats the 64 s."""
    seconds = _by_method(rows, "seconds")
    ours = list(seconds.get(spec.ours, {}).values())
    if not ours:
        return _open(f"needs edits by {spec.ours!r}", baseline)
    slowest = max(ours)
    theirs = list(seconds.get(baseline or "", {}).values())
    return {
        "verdict": "supported" if slowest < TRAINED_SECONDS else "not supported",
        "difference": float(np.mean(ours) - np.mean(theirs)) if theirs else None,
        "ci": None,
        "baseline": baseline,
        "note": (
            f"closed form, no image and no gradient step; slowest of {len(ours)} edits "
            f"{slowest:.2f} s on this machine and model, against {TRAINED_SECONDS:.0f} s "
            "published for the quickest trained attack on SD1.5; difference in seconds an edit"
        ),
    }


def _baseline(
    values: Mapping[str, Mapping[object, float]], others: Sequence[str], spec: ClaimSpec
) -> tuple[str | None, str]:
    if spec.baseline is not None:
        return (spec.baseline if spec.baseline in values else None), (
            "baseline chosen on development pairs"
        )
    if not others:
        return None, ""
    best = max(others, key=lambda method: float(np.mean(list(values[method].values()))))
    return best, "baseline chosen on the pairs tested, which favours the baseline"


def _by_method(rows: Sequence[Summary], key: str) -> dict[str, dict[object, float]]:
    found: dict[str, dict[object, float]] = {}
    for row in rows:
        if row[key] is not None:
            unit = (row["trigger"], row["target"], row["seed"])
            found.setdefault(row["method"], {})[unit] = row[key]
    return found


def _open(note: str, baseline: str | None = None) -> Claim:
    return {
        "verdict": "not measured",
        "difference": None,
        "ci": None,
        "baseline": baseline,
        "note": note,
    }
