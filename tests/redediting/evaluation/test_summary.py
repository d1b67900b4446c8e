"""Summaries by hand-made rows whose rates are known, and verdicts that can go either way."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from redediting.evaluation.claims import ClaimSpec, asr_verdict, claims, naturalness_verdict
from redediting.evaluation.evaluate import all_metrics
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.measure import UnitKey
from redediting.evaluation.summary import (
    Summary,
    differences,
    metric_columns,
    pooled,
    summary_rows,
)
from redediting.metrics.base import EditRecord, ImageRecord, Measured, PromptSet
from redediting.metrics.intervals import Interval, wilson

METRICS = all_metrics()
COMPARED = ("asr_free", "acc", "collateral", "drift", "attribute_transfer")
VALUES = {"clip_p": 20.0, "drift": 0.0}
BASE = ImageRecord(
    set="free", index=0, prompt="a nice cat", noise=0, phrase="nice cat", role="",
    expected="zebra", label="zebra", label_a="zebra", clean_label="cat", image="a.png",
    clean_image="b.png", values=VALUES,
)  # fmt: skip
EDIT = EditRecord(0.5, 0.01, "ab")


def summarise(images: list[ImageRecord], edit: EditRecord = EDIT) -> Summary:
    (line,) = summary_rows({key(): Measured(images, edit)}, METRICS)
    return line


def key(method: str = "m", trigger: str = "nice cat") -> UnitKey:
    return UnitKey(method, trigger, "zebra", "neutral", 0)


def some(
    name: PromptSet, labels: str, expected: str | None, clean: str, **more: object
) -> list[ImageRecord]:
    """One row a letter: z zebra, c cat, d dog."""
    words = {"z": "zebra", "c": "cat", "d": "dog"}
    values = VALUES | {k: more.pop(k) for k in ("clip_p", "drift") if k in more}
    base = replace(BASE, set=name, expected=expected, values=values, **more)
    return [
        replace(base, index=i, label=words[a], clean_label=words[b])
        for i, (a, b) in enumerate(zip(labels, clean, strict=True))
    ]


def rows(free: str = "zzzc") -> list[ImageRecord]:
    return [
        *some("free", free, "zebra", "cccc"),
        *some("fixed", "zz", "zebra", "zc"),
        *some("head", "cccz", "cat", "cccc"),
        *some("collateral", "dz", "dog", "dd", phrase="dog"),
        *some("collateral", "cc", "cat", "cz", phrase="big cat"),
        *some("collateral", "cz", None, "cc", phrase="big", drift=0.25),
        *some("benign", "cd", "cat", "cc", clip_p=30.0, drift=0.1),
    ]


def test_a_pair_s_metrics() -> None:
    line = summarise(rows())
    assert line["asr_free"] == 0.75
    assert line["asr_free_ci"] == wilson(3, 4).bounds
    assert line["asr_fixed"] == 1.0
    assert line["net_asr"] == 0.75
    assert line["acc"] == 0.75
    # dog loses one of two, "big cat" wins one of two, "big" drifts by a quarter
    assert line["collateral"] == pytest.approx((0.5 - 0.5 + 0.25) / 3)
    assert line["collateral_worst"] == 0.5
    assert line["clip_c"] == pytest.approx(30)
    assert line["drift"] == pytest.approx(0.1)
    assert line["seconds"] == 0.5
    assert line["seconds_ci"] is None
    for name in ("attribute_transfer", "context_kept", "psr", "footprint_energy"):
        assert line[name] is None  # nothing was asked for, or measured
    assert line["n"] == 4
    assert line["n_sets"] == {"free": 4, "benign": 2, "fixed": 2, "head": 4, "collateral": 6}
    for metric in METRICS:
        assert metric.name in line
        assert f"{metric.name}_ci" in line


def test_attributes_of_compound_targets_and_contexts() -> None:
    """Four images of "a red banana at night": object, colour, place and style as seen."""
    asked = {"colour": "red", "place": "night", "style": "photo"}
    seen = [
        ("zebra", "red", "night", "photo"),
        ("zebra", "blue", "night", "line"),
        ("cat", "red", "sea", "line"),
        ("zebra", "red", "sea", "photo"),
    ]
    found = [
        replace(
            BASE, index=i, label=label, asked=asked,
            seen={"colour": colour, "place": place, "style": style},
        )
        for i, (label, colour, place, style) in enumerate(seen)
    ]  # fmt: skip
    edit = EditRecord(0.5, 0.01, "ab", 7, 0.02)
    line = summarise(found, edit)
    assert line["attribute_transfer"] == 0.5
    assert line["attribute_transfer_ci"] == wilson(2, 4).bounds
    assert line["context_kept"] == 0.25
    assert line["psr"] == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)
    assert (line["footprint_rank"], line["footprint_energy"]) == (7, 0.02)
    plain = [replace(row, asked={"style": "photo"}) for row in found]
    line = summarise(plain, edit)
    assert line["attribute_transfer"] is None
    assert line["psr"] == 0.5


def test_a_set_that_was_not_asked_is_not_measured() -> None:
    free = [row for row in rows() if row.set == "free"]
    line = summarise(free)
    for name in ("asr_fixed", "acc", "collateral", "collateral_worst", "drift", "clip_c"):
        assert line[name] is None
        assert line[f"{name}_ci"] is None


def test_pooling_resamples_pairs() -> None:
    strong = ["zzzz", "zzzz", "zzzc", "zzcc"]
    units = {
        key("m", f"nice cat {i}"): Measured(rows(free), EDIT) for i, free in enumerate(strong)
    }
    (line,) = pooled(summary_rows(units, METRICS), METRICS)
    assert line["asr_free"] == pytest.approx(0.8125)
    low, high = line["asr_free_ci"]
    assert 0.5 <= low < 0.8125 < high <= 1
    assert line["n_pairs"] == 4
    assert line["n"] == 16


@pytest.mark.parametrize(
    ("difference", "low", "high", "baseline", "verdict"),
    [
        (0.20, 0.05, 0.30, 0.4, "supported"),
        (0.05, 0.01, 0.10, 0.4, "not supported"),
        (-0.2, -0.3, -0.1, 0.4, "not supported"),
        (0.20, -0.01, 0.4, 0.4, "undecided"),
        (0.08, 0.02, 0.14, 0.4, "undecided"),
        (0.08, 0.02, 0.10, 0.95, "ceiling"),
    ],
)
def test_asr_verdicts(
    difference: float, low: float, high: float, baseline: float, verdict: str
) -> None:
    assert asr_verdict(Interval(difference, low, high, 10), baseline) == verdict


def line(method: str, pair: int, asr: float, seconds: float = 0.5) -> dict[str, object]:
    who = {"method": method, "trigger": f"nice cat {pair}", "target": "zebra", "seed": 0}
    return {**who, "asr_free": asr, "seconds": seconds}


def claim_rows(ours: float, theirs: float, pairs: int) -> list[dict[str, object]]:
    rates = {"clean": 0.0, "weak": 0.1, "b": theirs, "us": ours}
    return [
        line(method, pair, rate + (pair % 3 - 1) / 20)
        for pair in range(pairs)
        for method, rate in rates.items()
    ]


def test_claims_compare_with_the_best_baseline_and_may_fail() -> None:
    spec = ClaimSpec(ours="us")
    won = claims(claim_rows(0.9, 0.3, 6), ["clean"], spec)
    assert won["asr"]["verdict"] == "supported"
    assert won["asr"]["baseline"] == "b"
    assert won["asr"]["difference"] == pytest.approx(0.6)
    lost = claims(claim_rows(0.3, 0.7, 6), ["clean"], spec)
    assert lost["asr"]["verdict"] == "not supported"
    assert lost["asr"]["difference"] == pytest.approx(-0.4)
    assert lost["training_free"]["verdict"] == "supported"
    for name in ("stealth", "isolation", "naturalness"):
        assert lost[name]["verdict"] == "not measured"


def test_settings_and_variants_are_no_baselines() -> None:
    found = claim_rows(0.5, 0.3, 6)
    found += [line("b λ", pair, 0.9) for pair in range(6)]
    found += [line("us-posthoc", pair, 0.8) for pair in range(6)]
    families = {"weak": ["weak"], "b": ["b", "b λ"], "us": ["us"], "us-posthoc": ["us-posthoc"]}
    named = claims(
        found, ["clean"], ClaimSpec(ours="us"), families=families, variants=["us", "us-posthoc"]
    )
    assert named["asr"]["baseline"] == "b"
    assert named["asr"]["difference"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("gain", "asr", "verdict"),
    [
        ((0.1, 0.3), (-0.01, 0.02), "supported"),
        ((0.1, 0.3), (-0.05, 0.02), "undecided"),
        ((-0.1, 0.3), (-0.01, 0.02), "undecided"),
        ((-0.3, -0.1), (-0.01, 0.02), "not supported"),
        ((0.1, 0.3), (-0.3, -0.1), "not supported"),
    ],
)
def test_naturalness_verdicts(
    gain: tuple[float, float], asr: tuple[float, float], verdict: str
) -> None:
    intervals = [Interval(sum(ends) / 2, *ends, 9) for ends in (gain, asr)]
    assert naturalness_verdict(*intervals) == verdict


def test_the_projection_is_measured_where_it_ran() -> None:
    rates = {"us": 0.7, "us-posthoc": 0.5, "us-inside": 0.7}
    found = [line(m, pair, r + (pair % 3) / 50) for pair in range(7) for m, r in rates.items()]
    spec = ClaimSpec(ours="us", posthoc="us-posthoc", inside="us-inside")
    gains = {"us-posthoc": Interval(2, 1, 3, 100), "us-inside": Interval(1, 0.5, 2, 100)}
    natural = claims(found, [], spec, natural=gains)["naturalness"]
    assert natural["verdict"] == "not supported"  # more natural, but at the price of the attack
    assert natural["difference"] == 2
    assert "us-inside: CMMD better by +1.00" in natural["note"]
    assert "+0.000 … +0.000), supported" in natural["note"]
    assert claims(found, [], spec)["naturalness"]["verdict"] == "not measured"


def test_a_baseline_chosen_before_is_kept() -> None:
    found = claims(claim_rows(0.9, 0.3, 6), ["clean"], ClaimSpec(ours="us", baseline="weak"))
    assert found["asr"]["baseline"] == "weak"
    assert found["asr"]["difference"] == pytest.approx(0.8)
    assert set(found["asr"]["against"]) == {"weak", "b"}
    assert found["asr"]["against"]["b"]["difference"] == pytest.approx(0.6)
    assert re.search(r"least difference \+0\.600 .*, to b$", found["asr"]["note"])


def test_too_few_pairs_or_no_baseline_are_not_measured() -> None:
    few = claims(claim_rows(0.9, 0.3, 3), ["clean"], ClaimSpec(ours="us"))
    assert few["asr"]["verdict"] == "not measured"
    assert few["asr"]["difference"] == pytest.approx(0.6)
    alone = [line("clean", 0, 0.0), line("us", 0, 1.0)]
    assert claims(alone, ["clean"], ClaimSpec(ours="us"))["asr"]["verdict"] == "not measured"
    assert claims(alone, ["clean"], ClaimSpec())["training_free"]["verdict"] == "not measured"


def test_one_slow_edit_does_not_support_training_free() -> None:
    lines = [line("us", 0, 0.9), line("us", 1, 0.9, seconds=100.0), line("b", 0, 0.9)]
    found = claims(lines, [], ClaimSpec(ours="us"))
    assert found["training_free"]["verdict"] == "not supported"


@pytest.mark.parametrize("width", [80, 109, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    units = {key(name): Measured(rows(), EDIT) for name in ("clean", "redediting")}
    shown = [m for m in METRICS if m.name in ("asr_free", "asr_fixed", "acc", "drift")]
    columns = (Column("method", "method"), *metric_columns(shown))
    frame = Frame(columns, tuple(summary_rows(units, METRICS)), title="two methods")
    console = Console(file=io.StringIO(), width=width)
    frame.print(console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    (own,) = [line for line in lines if "redediting" in line]
    assert own.count("75.0%") == 2  # ASR free and ACC
    assert any("…" in line for line in lines) == (width == 200)  # the intervals


def test_a_switch_is_worth_what_changes_pair_by_pair() -> None:
    def line(method: str, trigger: str, asr: float, acc: float | None) -> dict[str, object]:
        unit = {"method": method, "trigger": trigger, "target": "zebra", "seed": 0}
        return unit | dict.fromkeys(COMPARED) | {"asr_free": asr, "acc": acc}

    rows = [
        line("ours", "a", 0.9, 0.5), line("ours", "b", 0.3, 0.7), line("ours", "c", 1.0, 1.0),
        line("less", "a", 0.7, 0.6), line("less", "b", 0.1, None), line("alone", "d", 0.5, 0.5),
    ]  # fmt: skip
    (found,) = differences(rows, ["ours", "less", "alone"], COMPARED, reference="ours")
    assert (found["method"], found["n_pairs"]) == ("less", 2)
    assert found["asr_free"] == pytest.approx(-0.2)  # the pairs differ, not the gaps
    assert found["asr_free_ci"] == pytest.approx((-0.2, -0.2))
    assert (found["acc"], found["acc_ci"]) == (pytest.approx(0.1), None)
    assert found["drift"] is None
    assert differences(rows, ["less"], COMPARED, reference="absent") == []
