"""Summaries by hand-made rows whose rates are known, and verdicts that can go either way."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

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
from redediting.metrics.intervals import wilson

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
    strong = ["zzzz", "zzzz", "zzzc", "zzcc", "zccc", "zzzz"]
    units = {
        key("m", f"nice cat {i}"): Measured(rows(free), EDIT) for i, free in enumerate(strong)
    }
    (line,) = pooled(summary_rows(units, METRICS), METRICS)
    assert line["asr_free"] == pytest.approx(0.75)
    low, high = line["asr_free_ci"]
    assert 0 < low < 0.75 < high <= 1
    assert line["asr_fixed_ci"] == pytest.approx([0.05 ** (1 / 6), 1])  # all of six pairs
    assert (line["n_pairs"], line["n"]) == (6, 24)
    few = list(units.items())[1:4]
    (line,) = pooled(summary_rows(dict(few), METRICS), METRICS)
    assert line["asr_free_ci"] is None
    assert line["asr_free_values"] == [1, 0.75, 0.5]
    frame = Frame(tuple(metric_columns(METRICS[:1])), (line,))
    assert "75.0% (3 pairs: 1, 0.75, 0.5)" in str(frame)
    assert "75.0% (3 pairs: 1, 0.75, 0.5)" in frame.to_markdown()
    assert "<small>3 pairs: 1, 0.75, 0.5</small>" in frame.to_html()


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
    assert found["asr_free_ci"] is None  # two pairs carry no interval, nor does a constant
    assert found["asr_free_values"] == pytest.approx([-0.2, -0.2])
    assert found["asr_free_p"] is None
    assert (found["acc"], found["acc_ci"]) == (pytest.approx(0.1), None)
    assert found["drift"] is None
    assert differences(rows, ["less"], COMPARED, reference="absent") == []


def test_p_values_are_adjusted_for_the_whole_table() -> None:
    rng = np.random.default_rng(0)
    gains = {"better": 0.4, "same": 0.0, "worse": -0.1}

    def line(method: str, pair: int, seed: int, asr: float) -> Summary:
        unit = {"method": method, "trigger": f"cat {pair}", "target": "zebra", "seed": seed}
        return unit | dict.fromkeys(COMPARED) | {"asr_free": asr + 0.05 * rng.normal(), "acc": asr}

    rows = [
        line(method, pair, seed, 0.3 + 0.02 * pair + gain)
        for pair in range(10)
        for seed in range(2)
        for method, gain in ({"ours": 0.0} | gains).items()
    ]
    found = {x["method"]: x for x in differences(rows, list(gains), COMPARED, reference="ours")}
    assert list(found) == list(gains)
    assert found["better"]["asr_free_ci"][0] > 0
    assert found["better"]["asr_free_p"] < 0.05 < found["same"]["asr_free_p"]
    alone = differences(rows, ["better"], ("asr_free",), reference="ours")[0]
    assert alone["asr_free_p"] < found["better"]["asr_free_p"]  # adjusted for six differences
    assert found["better"]["n_pairs"] == 10  # seeds are no clusters
