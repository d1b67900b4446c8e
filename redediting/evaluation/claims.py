"""The paper's claims, put to a test that can come out against it.

Thresholds and verdicts are fixed by the project's protocol, before any run: ``supported``,
``not_supported``, ``ceiling``, ``undecided``, and ``not_measured`` where the data do not suffice.
The six claims that rest on an interval are one family: intervals at 95 % together (Bonferroni, and
over the readings of a claim), p values adjusted by Holm. Kinds of trigger have too few pairs for
that: their differences stand beside, unadjusted, and a verdict says when they disagree.

References:
    REDEditing, arXiv 2504.14554: "+11 % ASR over the state of the art", "+24 % stealthiness".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field
from scipy import stats

from redediting.config import Config
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.summary import Summary, by_pair
from redediting.evaluation.tradeoff import NotComparable, at_equal_asr
from redediting.metrics.contrasts import contrasts, holm, sign_flips
from redediting.metrics.intervals import ALPHA, GAP, Interval, mean_over, over_clusters

MARGIN = 0.11  # the improvement in ASR that is claimed
CEILING = 0.89  # above it no improvement of that size is possible
INFERIOR = 0.02  # of ASR: what the projection may lose
SPREAD = 0.05  # of pair differences, at 24 pairs, beyond which that margin cannot be decided
STEALTH = 0.24  # the relative reduction of drift that is claimed
SELECTIVE = 0.05  # of ACC and collateral, at equal ASR
FAMILY = ("asr_published", "asr_equal_contexts", "selectivity", "stealth", "naturalness",
          "retrieval")  # fmt: skip
_SEEN = {"asr_unseen": "asr_free", "collateral_unseen": "collateral"}  # what stands in for it
Claim = dict[str, Any]
Gaps = Mapping[tuple[str, str], float]


class ClaimSpec(Config):
    """What the claims are tested with; the thresholds are fixed by the protocol.

    Attributes:
        ours: title of the method whose claims are tested.
        baseline: title of the best baseline as published, as chosen on development pairs; None
            takes the best one on the very pairs tested, which favours the baseline.
        equal: title of the best baseline that was given our contexts and head-noun whitelist.
        readings: titles of the same method with each reading of the one-line projection.
        levels: of ASR, at which costs are compared; named on development pairs.
        min_pairs: fewest pairs for a verdict.
    """

    ours: str = "redediting"
    baseline: str | None = None
    equal: str | None = None
    readings: tuple[str, ...] = tuple(
        f"redediting-{reading}" for reading in ("posthoc", "inside", "row_shift")
    )
    levels: tuple[float, ...] = ()
    min_pairs: int = Field(default=6, ge=2)


def claims(
    rows: Sequence[Summary],
    controls: Sequence[str],
    spec: ClaimSpec,
    *,
    dials: Mapping[str, Mapping[str, float]] | None = None,
    left_out: Sequence[str] = (),
    trained: Sequence[str] = (),
    natural: Mapping[str, Interval] | None = None,
) -> dict[str, Claim]:
    """Returns the verdict on each claim.

    Args:
        rows: of `redediting.evaluation.summary.summary_rows`.
        controls: titles of entries that change nothing.
        spec: whose claims, against what.
        dials: of each method by title its settings that differ in λ alone, and their λ.
        left_out: titles that are no baselines: settings of sweeps, other forms of our method.
        trained: titles of attacks that need images or gradient steps.
        natural: CMMD of triggered images without the projection minus that with it, by title of
            the form with it: positive where the projection makes images more natural.
    """
    titles = list(dict.fromkeys(row["method"] for row in rows))
    ours = {*controls, CONTROL, spec.ours, *spec.readings, *left_out, *trained}
    others = [title for title in titles if title not in ours]
    asr = _measured(rows, "asr_unseen")
    baseline, note = _baseline(rows, others, spec, asr)
    found = {
        "asr_published": _asr(rows, spec, asr, baseline, note, others),
        "asr_equal_contexts": _open(
            "needs a baseline given REDEditing's contexts and head-noun whitelist (claims.equal)"
        ) if spec.equal is None else _asr(rows, spec, asr, spec.equal, "equal contexts", ()),
        "selectivity": _selectivity(rows, spec, dials or {}, asr),
        "released": _open("this edition has no rededit_released in its three coefficients"),
        "stealth": _stealth(rows, spec, asr),
        "naturalness": _naturalness(rows, spec, asr, natural or {}),
        "retrieval": _open("needs equivalent contexts and their random-value placebo on "
                           "relation-bearing unseen prompts; not in this run"),
        "training_free": _training_free(rows, spec, trained),
    }  # fmt: skip
    adjusted = holm([found[name].get("p", 1.0) for name in FAMILY])
    for name, p in zip(FAMILY, adjusted, strict=True):
        if "p" in found[name]:
            found[name]["p_holm"] = p
            if found[name]["verdict"] == "supported" and p >= ALPHA:
                found[name]["verdict"] = "undecided"
    if asr != "asr_unseen":
        for name in FAMILY:
            claim = found[name]
            if claim["verdict"] != "not_measured":
                claim["note"] = (
                    f"asr_unseen is not measured in this run; exploratory, on {asr}: "
                    f"{verdict_line(claim)}; {claim['note']}"
                )
                claim["verdict"] = "not_measured"
    return found


def verdict_line(claim: Mapping[str, Any]) -> str:
    """A verdict as it is printed; with it which kinds of trigger disagree."""
    said = str(claim["verdict"]).replace("_", " ")
    kinds = {k: x["difference"] for k, x in (claim.get("by_kind") or {}).items()}
    whole = claim.get("difference")
    against = {k: gap for k, gap in kinds.items() if whole is not None and gap * whole <= 0}
    if not against or said == "not measured":
        return said
    return f"{said} (kinds disagree: {', '.join(f'{k} {g:+.3f}' for k, g in against.items())})"


def asr_verdict(difference: Interval, baseline: float) -> str:
    """The verdict on a difference in ASR to a baseline whose ASR is given, 0…1."""
    if baseline > CEILING:
        return "ceiling"
    if difference.value >= MARGIN and difference.low > 0:
        return "supported"
    return "not_supported" if difference.high < MARGIN else "undecided"


def projection_verdict(gain: Interval, asr: Interval, spread: float, *, least: float = 0) -> str:
    """The verdict on a projection that may cost two points of ASR.

    Args:
        gain: what it is to improve.
        asr: ASR with minus without it, −1…1.
        spread: standard deviation of that over pairs; too large for the margin is undecided.
        least: gain that is claimed, beside an interval above zero.
    """
    if gain.high <= least or asr.high < -INFERIOR:
        return "not_supported"
    decided = spread <= SPREAD * ((asr.clusters or 0) / 24) ** 0.5
    kept = decided and asr.low >= -INFERIOR
    return "supported" if kept and gain.value >= least and gain.low > 0 else "undecided"


def selectivity_verdict(gaps: Mapping[str, Interval]) -> str:
    """The verdict from ours minus theirs of ``acc``, collateral and ``drift``, in this order."""
    acc, collateral, drift = gaps.values()
    if acc.high < SELECTIVE or collateral.low > -SELECTIVE or drift.low > 0:
        return "not_supported"
    enough = acc.value >= SELECTIVE and collateral.value <= -SELECTIVE
    beyond = acc.low > 0 and collateral.high < 0 and drift.high < 0
    return "supported" if enough and beyond else "undecided"


def _asr(
    rows: Sequence[Summary],
    spec: ClaimSpec,
    asr: str,
    baseline: str | None,
    note: str,
    others: Sequence[str],
) -> Claim:
    """The verdict against one baseline; the differences to all, exploratory, in ``against``."""
    gaps = {name: by_pair(rows, asr, spec.ours, name) for name in (*others, baseline) if name}
    if baseline is None or not gaps[baseline]:
        return _open(f"needs {asr} of {spec.ours!r} and of a baseline", baseline)
    own, n = gaps[baseline], len(gaps[baseline])
    interval = mean_over(list(own.values()), support=GAP, alpha=ALPHA / len(FAMILY))
    theirs = float(np.mean(list(by_pair(rows, asr, baseline).values())))
    every = contrasts({name: gap for name, gap in gaps.items() if gap}, support=GAP)
    enough = n >= spec.min_pairs
    found = _claim(rows, own, interval, baseline) | {
        "verdict": asr_verdict(interval, theirs) if enough else "not_measured",
        "against": {
            name: {"difference": one.interval.value, "ci": one.interval.bounds, "p": one.p_holm}
            for name, one in every.items()
        },
        "note": note if enough else f"needs at least {spec.min_pairs} pairs, got {n}; {note}",
    }
    return found | ({"p": sign_flips(list(own.values()))} if enough else {})


def _selectivity(
    rows: Sequence[Summary], spec: ClaimSpec, dials: Mapping[str, Mapping[str, float]], asr: str
) -> Claim:
    rival = spec.equal
    if rival is None:
        return _open("needs a baseline given REDEditing's contexts and whitelist (claims.equal)")
    costs = ("acc", _measured(rows, "collateral_unseen"), "drift")
    try:
        found = at_equal_asr(
            rows, dials.get(spec.ours, {}), dials.get(rival, {}), levels=spec.levels, asr=asr,
            costs=costs, alpha=ALPHA / len(FAMILY),
        )  # fmt: skip
    except NotComparable as reason:
        return _open(str(reason), rival)
    said = ", ".join(f"{name} {gap.text('{:+.3f}')}" for name, gap in found.gaps.items())
    acc = found.gaps["acc"]
    levels = ", ".join(f"{level:.0%}" for level in found.levels)
    n = acc.clusters or 0
    return {
        "verdict": selectivity_verdict(found.gaps) if n >= spec.min_pairs else "not_measured",
        "difference": acc.value, "ci": acc.bounds, "n_clusters": n, "baseline": rival,
        "by_kind": {},
        "gaps": {k: {"difference": x.value, "ci": x.bounds} for k, x in found.gaps.items()},
        "note": f"at equal ASR ({levels}; the curves overlap at {found.overlap[0]:.1%} … "
                f"{found.overlap[1]:.1%}): {said}",
    }  # fmt: skip


def _stealth(rows: Sequence[Summary], spec: ClaimSpec, asr: str) -> Claim:
    """Each reading of the projection against none: relative reduction of drift."""
    found = {}
    off = by_pair(rows, "drift", spec.ours)
    for title in spec.readings:
        own = by_pair(rows, "drift", title)
        pairs = [pair for pair in off if pair in own]
        before, after = (np.array([side[pair] for pair in pairs]) for side in (off, own))
        if len(pairs) >= spec.min_pairs and (before > 0).all():
            reduction = over_clusters(
                lambda w, a=after, b=before: 1 - (w @ a) / (w @ b),  # type: ignore[misc]
                (1 - after / before).tolist(), n=len(pairs),
                alpha=ALPHA / len(FAMILY) / len(spec.readings),
            )  # fmt: skip
            gaps = {p: 1 - float(own[p] / off[p]) for p in pairs}
            found[title] = (reduction, gaps)
    return _readings(rows, spec, asr, found, STEALTH, "relative reduction of drift", "{:+.1%}")


def _naturalness(
    rows: Sequence[Summary], spec: ClaimSpec, asr: str, natural: Mapping[str, Interval]
) -> Claim:
    """Each reading against none: CMMD to the clean model's images of the target prompts."""
    found = {}
    for title in spec.readings:
        one = natural.get(title)
        if one is not None and one.bounds and (one.clusters or 0) >= spec.min_pairs:
            share, c = len(FAMILY) * len(spec.readings), one.clusters or 0
            wide, plain = (stats.t.ppf(1 - ALPHA / 2 / m, c - 1) for m in (share, 1))
            half = (one.high - one.value) * float(wide / plain)  # of the jackknife, Bonferroni
            ends = one.value - half, one.value + half
            found[title] = (Interval(one.value, *ends, one.n, c, one.kind), None)
    return _readings(rows, spec, asr, found, 0.0, "CMMD better by", "{:+.2f}")


def _readings(
    rows: Sequence[Summary],
    spec: ClaimSpec,
    asr: str,
    found: Mapping[str, tuple[Interval, Gaps | None]],
    least: float,
    name: str,
    form: str,
) -> Claim:
    """A verdict a reading; the claim's is that of the best one, intervals hold together."""
    verdicts, said = {}, []
    for title, (gain, _) in found.items():
        losses = list(by_pair(rows, asr, title, spec.ours).values())
        if losses:
            alpha = ALPHA / len(FAMILY) / len(spec.readings)
            loss = mean_over(losses, support=GAP, alpha=alpha)
            spread = float(np.std(losses, ddof=1)) if len(losses) > 1 else 0.0
            verdicts[title] = projection_verdict(gain, loss, spread, least=least)
            said.append(
                f"{title}: {name} {gain.text(form)}, ASR {loss.text('{:+.3f}')}, spread of pairs "
                f"{spread:.3f}, {verdicts[title].replace('_', ' ')}"
            )
    if not verdicts:
        needs = f"{spec.ours!r} and one of {', '.join(spec.readings)}"
        return _open(f"needs {needs} on at least {spec.min_pairs} pairs", spec.ours)
    order = ("supported", "undecided", "not_supported")
    best = min(verdicts, key=lambda title: order.index(verdicts[title]))
    gain, gaps = found[best]
    claim = _claim(rows, gaps or {}, gain, spec.ours) | {
        "verdict": verdicts[best],
        "readings": verdicts,
        "note": f"{best}; our readings of the paper's one line; ASR may lose {INFERIOR:.0%}; "
        + "; ".join(said),
    }
    return claim | ({"p": sign_flips(list(gaps.values()))} if gaps else {})


def _training_free(rows: Sequence[Summary], spec: ClaimSpec, trained: Sequence[str]) -> Claim:
    """Supported by what the method is; seconds only beside a trained attack's of the same run."""
    own = by_pair(rows, "seconds", spec.ours)
    if not own:
        return _open(f"needs edits by {spec.ours!r}")
    theirs = {title: own for title in trained if (own := by_pair(rows, "seconds", title))}
    slowest = f"slowest of {len(own)} edits {max(own.values()):.2f} s on this machine and model"
    quickest = min(theirs, key=lambda t: np.mean(list(theirs[t].values())), default=None)
    gap = by_pair(rows, "seconds", spec.ours, quickest) if quickest else {}
    interval = mean_over(list(gap.values())) if gap else None
    beside = f"beside {quickest}'s" if quickest else "no trained attack in this run to set beside"
    return {
        "verdict": "not_supported" if spec.ours in trained else "supported",
        "difference": interval and interval.value, "ci": interval and interval.bounds,
        "n_clusters": len(own), "baseline": quickest, "by_kind": {},
        "note": f"closed form: no image, no gradient step; {slowest}; {beside}",
    }  # fmt: skip


def _baseline(
    rows: Sequence[Summary], others: Sequence[str], spec: ClaimSpec, asr: str
) -> tuple[str | None, str]:
    if spec.baseline is not None:
        return spec.baseline, "baseline chosen on development pairs"
    rates = {t: own for t in others if (own := list(by_pair(rows, asr, t).values()))}
    best = max(rates, key=lambda t: float(np.mean(rates[t])), default=None)
    return best, "baseline chosen on the pairs tested, which favours the baseline"


def _claim(rows: Sequence[Summary], gaps: Gaps, interval: Interval, baseline: str) -> Claim:
    """The common keys, and each kind's difference, unadjusted."""
    kinds = {(row["trigger"], row["target"]): row.get("kind", "") for row in rows}
    by_kind = {}
    for kind in dict.fromkeys(kinds[pair] for pair in gaps):
        one = mean_over([gap for pair, gap in gaps.items() if kinds[pair] == kind])
        by_kind[kind] = {"difference": one.value, "ci": one.bounds, "n_clusters": one.n}
        by_kind[kind] |= {"values": list(one.values)} if one.values else {}
    return {
        "difference": interval.value, "ci": interval.bounds, "n_clusters": interval.clusters,
        "baseline": baseline, "by_kind": by_kind,
    }  # fmt: skip


def _measured(rows: Sequence[Summary], name: str) -> str:
    """The metric on unseen contexts, or the seen one where a run lacks it."""
    return name if any(row.get(name) is not None for row in rows) else _SEEN[name]


def _open(note: str, baseline: str | None = None) -> Claim:
    return {
        "verdict": "not_measured", "difference": None, "ci": None, "n_clusters": 0,
        "baseline": baseline, "by_kind": {}, "note": note,
    }  # fmt: skip
