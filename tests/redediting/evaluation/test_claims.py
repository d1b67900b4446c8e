"""Verdicts that can go either way, and what a claim says of what was not measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redediting.evaluation.claims import (
    FAMILY,
    ClaimSpec,
    asr_verdict,
    claims,
    projection_verdict,
    selectivity_verdict,
    verdict_line,
)
from redediting.metrics.intervals import Interval

KINDS = ("neutral", "compound", "rare")
VERDICTS = {"supported", "not_supported", "ceiling", "undecided", "not_measured"}
NAMES = {"asr_published", "asr_equal_contexts", "selectivity", "released", "stealth",
         "naturalness", "retrieval", "training_free"}  # fmt: skip


def line(method: str, pair: int, asr: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    who = {"method": method, "trigger": f"nice cat {pair}", "target": "zebra", "seed": 0}
    kind = KINDS[pair % 3]
    return {**who, "kind": kind, "asr_unseen": asr, "seconds": 0.5, **more}


def made(pairs: int = 12, **rates: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rates = {"clean": 0.0, "weak": 0.1} | rates
    return [
        line(method, pair, float(np.clip(rate + 0.05 * rng.normal(), 0, 1)))
        for pair in range(pairs)
        for method, rate in rates.items()
    ]


@pytest.mark.parametrize(
    ("difference", "low", "high", "baseline", "verdict"),
    [
        (0.20, 0.05, 0.30, 0.4, "supported"),
        (0.05, 0.01, 0.10, 0.4, "not_supported"),
        (-0.2, -0.3, -0.1, 0.4, "not_supported"),
        (0.20, -0.01, 0.4, 0.4, "undecided"),
        (0.08, 0.02, 0.14, 0.4, "undecided"),
        (0.08, 0.02, 0.10, 0.95, "ceiling"),
        (0.50, float("nan"), float("nan"), 0.4, "undecided"),  # no interval decides nothing
    ],
)
def test_asr_verdicts(
    difference: float, low: float, high: float, baseline: float, verdict: str
) -> None:
    assert asr_verdict(Interval(difference, low, high, 10), baseline) == verdict


@pytest.mark.parametrize(
    ("gain", "asr", "spread", "verdict"),
    [
        ((0.1, 0.3), (-0.01, 0.02), 0.01, "supported"),
        ((0.1, 0.3), (-0.01, 0.02), 0.06, "undecided"),  # pairs spread too far for two points
        ((0.1, 0.3), (-0.05, 0.02), 0.01, "undecided"),
        ((-0.1, 0.3), (-0.01, 0.02), 0.01, "undecided"),
        ((-0.3, -0.1), (-0.01, 0.02), 0.01, "not_supported"),
        ((0.1, 0.3), (-0.3, -0.1), 0.01, "not_supported"),
        ((float("nan"),) * 2, (-0.01, 0.02), 0.01, "undecided"),
    ],
)
def test_projection_verdicts(
    gain: tuple[float, float], asr: tuple[float, float], spread: float, verdict: str
) -> None:
    intervals = [Interval(sum(ends) / 2, *ends, 24, 24) for ends in (gain, asr)]
    assert projection_verdict(*intervals, spread) == verdict


@pytest.mark.parametrize(
    ("acc", "collateral", "drift", "verdict"),
    [
        ((0.04, 0.12), (-0.12, -0.04), (-0.2, -0.1), "supported"),
        ((0.04, 0.12), (-0.12, -0.04), (-0.2, 0.1), "undecided"),
        ((0.04, 0.12), (-0.02, 0.04), (-0.2, -0.1), "not_supported"),
        ((0.00, 0.04), (-0.12, -0.04), (-0.2, -0.1), "not_supported"),
        ((0.04, 0.12), (-0.12, -0.04), (0.1, 0.2), "not_supported"),
    ],
)
def test_selectivity_needs_all_three(
    acc: tuple[float, float], collateral: tuple[float, float], drift: tuple[float, float],
    verdict: str,
) -> None:  # fmt: skip
    ends = {"acc": acc, "collateral_unseen": collateral, "drift": drift}
    gaps = {name: Interval(sum(pair) / 2, *pair, 9, 9) for name, pair in ends.items()}
    assert selectivity_verdict(gaps) == verdict


def test_claims_compare_with_the_best_baseline_and_may_fail() -> None:
    spec = ClaimSpec(ours="us", equal="b")
    won = claims(made(us=0.8, b=0.3), ["clean"], spec)
    assert set(won) == NAMES
    assert {claim["verdict"] for claim in won.values()} <= VERDICTS
    for name in ("asr_published", "asr_equal_contexts"):
        assert won[name]["verdict"] == "supported"
        assert won[name]["baseline"] == "b"
        assert won[name]["n_clusters"] == 12
        assert won[name]["p_holm"] == pytest.approx(len(FAMILY) * won[name]["p"], rel=0.21)
    assert won["asr_published"]["difference"] == pytest.approx(0.5, abs=0.05)
    assert set(won["asr_published"]["against"]) == {"weak", "b"}
    lost = claims(made(us=0.3, b=0.7), ["clean"], spec)
    assert lost["asr_published"]["verdict"] == "not_supported"
    assert lost["asr_published"]["difference"] == pytest.approx(-0.4, abs=0.05)
    for name in ("selectivity", "stealth", "naturalness", "released", "retrieval"):
        assert won[name]["verdict"] == "not_measured"
        assert won[name]["note"]


def test_kinds_that_disagree_stand_in_the_verdict_s_own_line() -> None:
    found = made(pairs=24, us=0.8, b=0.3)
    for row in found:
        if row["method"] == "us" and row["kind"] == "rare":
            row["asr_unseen"] = 0.28
    claim = claims(found, ["clean"], ClaimSpec(ours="us"))["asr_published"]
    assert claim["by_kind"]["rare"]["difference"] < 0 < claim["by_kind"]["neutral"]["difference"]
    assert claim["by_kind"]["rare"]["n_clusters"] == 8
    assert claim["by_kind"]["rare"]["ci"] is not None
    assert claim["verdict"] == "supported"
    assert verdict_line(claim).startswith("supported (kinds disagree: rare -0.0")
    agreed = claims(made(us=0.8, b=0.3), ["clean"], ClaimSpec(ours="us"))["asr_published"]
    assert verdict_line(agreed) == "supported"
    assert agreed["by_kind"]["rare"]["ci"] is None  # four pairs
    assert len(agreed["by_kind"]["rare"]["values"]) == 4
    assert verdict_line({"verdict": "not supported", "difference": 0.1}) == "not supported"


def test_what_is_known_of_seen_contexts_alone_is_exploratory() -> None:
    found = [row | {"asr_free": row.pop("asr_unseen")} for row in made(us=0.8, b=0.3)]
    claim = claims(found, ["clean"], ClaimSpec(ours="us"))["asr_published"]
    assert claim["verdict"] == "not_measured"
    assert claim["difference"] == pytest.approx(0.5, abs=0.05)
    assert "exploratory, on asr_free: supported" in claim["note"]


def test_settings_and_variants_are_no_baselines() -> None:
    found = made(us=0.5, b=0.3) + [line("b λ", pair, 0.9) for pair in range(12)]
    found += [line("us-posthoc", pair, 0.8) for pair in range(12)]
    found += [line("rickrolling", pair, 0.9, seconds=60.0) for pair in range(12)]
    named = claims(
        found, ["clean"], ClaimSpec(ours="us"), left_out=["b λ", "us", "us-posthoc"],
        trained=["rickrolling"],
    )  # fmt: skip
    assert named["asr_published"]["baseline"] == "b"
    free = named["training_free"]
    assert (free["verdict"], free["baseline"]) == ("supported", "rickrolling")
    assert free["difference"] == pytest.approx(-59.5)
    alone = claims(made(us=0.5), ["clean"], ClaimSpec(ours="us"))["training_free"]
    assert (alone["verdict"], alone["difference"]) == ("supported", None)
    assert "no trained attack in this run" in alone["note"]
    itself = claims(found, [], ClaimSpec(ours="rickrolling"), trained=["rickrolling"])
    assert itself["training_free"]["verdict"] == "not_supported"


def test_the_projection_is_measured_where_it_ran() -> None:
    rng = np.random.default_rng(1)
    cost = {"us": 1.0, "us-posthoc": 0.5, "us-inside": 0.95}
    loss = {"us": 0.0, "us-posthoc": -0.2, "us-inside": 0.0}
    found = []
    for pair in range(12):
        easy = 0.7 + 0.1 * rng.normal()
        for name, share in cost.items():
            drift = 0.1 * share * (1 + 0.05 * rng.normal())
            asr = easy + loss[name] + 0.004 * rng.normal()
            found.append(line(name, pair, asr, drift=drift))
    spec = ClaimSpec(ours="us", readings=("us-posthoc", "us-inside"))
    gains = {
        "us-posthoc": Interval(2, 1, 3, 100, 12, "jackknife"),
        "us-inside": Interval(1, 0.5, 1.5, 100, 12, "jackknife"),
    }
    result = claims(found, [], spec, natural=gains)
    stealth, natural = result["stealth"], result["naturalness"]
    assert stealth["readings"] == dict.fromkeys(spec.readings, "not_supported")
    assert stealth["verdict"] == "not_supported"  # less drift at the price of the attack, or none
    assert "relative reduction of drift +51" in stealth["note"]
    assert natural["verdict"] == "supported"
    assert natural["readings"]["us-posthoc"] == "not_supported"
    assert natural["ci"][0] < 0.5  # wider than alone: three times two contrasts
    assert claims(found, [], spec)["naturalness"]["verdict"] == "not_measured"
    few = [row for row in found if row["trigger"] < "nice cat 2"]
    assert claims(few, [], spec)["stealth"]["verdict"] == "not_measured"


def test_a_baseline_chosen_before_is_kept() -> None:
    found = claims(made(us=0.8, b=0.3), ["clean"], ClaimSpec(ours="us", baseline="weak"))
    claim = found["asr_published"]
    assert claim["baseline"] == "weak"
    assert claim["difference"] == pytest.approx(0.7, abs=0.05)
    assert claim["against"]["b"]["difference"] == pytest.approx(0.5, abs=0.05)


def test_too_few_pairs_or_no_baseline_are_not_measured() -> None:
    few = claims(made(pairs=3, us=0.9, b=0.3), ["clean"], ClaimSpec(ours="us"))["asr_published"]
    assert (few["verdict"], few["ci"]) == ("not_measured", None)
    assert few["difference"] == pytest.approx(0.6, abs=0.06)
    alone = [line("clean", 0, 0.0), line("us", 0, 1.0)]
    assert claims(alone, ["clean"], ClaimSpec(ours="us"))["asr_published"]["verdict"] == (
        "not_measured"
    )
    assert claims(alone, ["clean"], ClaimSpec())["training_free"]["verdict"] == "not_measured"


def test_selectivity_at_equal_asr() -> None:
    rng = np.random.default_rng(2)
    dials = {name: {f"{name} {x}": x for x in (0.1, 0.3, 1, 3, 10)} for name in ("us", "b")}
    found = []
    for pair in range(9):
        for name, cost in (("us", 0.1), ("b", 0.4)):
            for i, title in enumerate(dials[name]):
                asr = 0.9 - 0.15 * i + 0.02 * rng.normal()
                harm = cost * asr + 0.01 * rng.normal()
                found.append(
                    line(title, pair, asr, drift=harm, acc=1 - harm, collateral_unseen=harm)
                )
    spec = ClaimSpec(ours="us", equal="b", levels=(0.5, 0.6))
    claim = claims(found, [], spec, dials=dials)["selectivity"]
    assert claim["verdict"] == "supported"
    assert claim["difference"] == pytest.approx(0.3 * 0.55, abs=0.03)
    assert set(claim["gaps"]) == {"acc", "collateral_unseen", "drift"}
    turned = ClaimSpec(ours="b", equal="us", levels=(0.5, 0.6))
    assert claims(found, [], turned, dials=dials)["selectivity"]["verdict"] == "not_supported"
    beyond = spec.model_copy(update={"levels": (0.95,)})
    missed = claims(found, [], beyond, dials=dials)["selectivity"]
    assert missed["verdict"] == "not_measured"
    assert missed["note"].startswith("not comparable: levels 95%")
