"""From a benchmark's units to its tables: the matrix of detectors, and what the attacks do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch

from defenses.detectors.base import Array
from defenses.detectors.benchmark import Benchmark, Found
from defenses.detectors.scoring import Group, Protocol, Scores, protocols, score
from redediting.concepts.homoglyphs import twin_in
from redediting.evaluation.detection import (
    ALL,
    PairOutcome,
    PairScores,
    detection_row,
    pooled_entry,
)
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.store import Row
from redediting.metrics.fidelity import drift

Table = Mapping[tuple[str, str, Protocol], Scores]  # by attack, detector and protocol


def all_scores(run: Benchmark, found: Sequence[Found]) -> Table:
    """Scores of every combination, attack by attack; those that cannot be learnt are left out."""
    methods = {f.unit.attack: f.unit.edit.name for f in found if f.unit.edit}
    clean = [f for f in found if not f.unit.rebinding]
    prompts = [prompt for f in clean for prompt in f.of("calibration", "prompt")]
    table: dict[tuple[str, str, Protocol], Scores] = {}
    for title, detector in run.detectors.items():
        groups = [
            Group(
                f.unit.attack, methods.get(f.unit.attack, ""), f"{f.unit.rebinding}",
                f.unit.position, {c: f.features(title, c) for c in ("benign", "triggered")},
                {c: f.of(c, "prompt") for c in ("benign", "triggered")},
            )
            for f in found if f.unit.rebinding
        ]  # fmt: skip
        known = np.concatenate([f.features(title, "calibration") for f in clean])
        for attack, protocol in product(methods, protocols(detector)):
            scores = score(detector, known, groups, attack, prompts, protocol)
            if scores is not None:
                table[attack, title, protocol] = scores
    order = list(methods)
    return dict(sorted(table.items(), key=lambda item: order.index(item[0][0])))


def matrix(run: Benchmark, found: Sequence[Found], table: Table) -> list[Row]:
    """One row an attack, detector, protocol and kind of trigger; ``all`` stands for all kinds."""
    rows = []
    for (attack, title, protocol), scores in table.items():
        units = [(f, f.unit.rebinding.kind) for f in found
                 if f.unit.rebinding and f.unit.attack == attack]  # fmt: skip
        for kind in (*dict.fromkeys(kind for _, kind in units), ALL):
            own = [f for f, k in units if kind in (k, ALL)]
            pairs = [_pair_scores(scores, attack, f) for f in own]
            row = detection_row(pairs, scores.calibration, run.detectors[title].direction)
            costs = {key: float(np.mean([f.record[key][title] for f in own]))
                     for key in ("unet_evaluations", "seconds")}  # fmt: skip
            names = {"attack": attack, "detector": title, "kind": kind, "protocol": protocol}
            rows.append({**names, **row, **costs})
    return rows


def attack_row(title: str, found: Sequence[Found]) -> Row:
    """Success, accuracy on benign prompts, drift, localisation and rewording of an attack."""
    units = [f for f in found if f.unit.attack == title and f.unit.rebinding]
    if title == CONTROL:  # on triggers as people write them, if any are
        units = [f for f in units if twin_in(f.rows[0]["trigger"]) is None] or units
    seconds = [f.record["edit_seconds"] for f in units]
    row: Row = {"attack": title, "n": sum(len(f.of("triggered", "hit")) for f in units)}

    def pooled(key: str, values: Sequence[Sequence[float]]) -> Row:
        by_pair = [(f.unit.position, own) for f, own in zip(units, values, strict=True)]
        merged: dict[int, list[float]] = {}
        for pair, own in by_pair:
            merged.setdefault(pair, []).extend(own)
        return pooled_entry(key, merged)

    row |= pooled("asr", [f.of("triggered", "hit") for f in units])
    kept = [zip(f.of("benign", "label"), f.of("benign", "expected"), strict=True) for f in units]
    row |= pooled("acc", [[a == b for a, b in own] for own in kept])
    row |= pooled("drift", [drifts(f, found) for f in units])
    row["edit_seconds"] = float(np.mean([s for s in seconds if s is not None]))
    row |= pooled("hit_at_1", [[x["hit"] for x in f.record.get("located", [])] for f in units])
    reworded = sorted({key for f in units for key in f.record if key.endswith("_triggered")})
    for name in (key.removesuffix("_triggered") for key in reworded):
        for short, cell in (("asr", "triggered"), ("acc", "benign")):
            row |= pooled(f"{short}_{name}", [f.record[f"{name}_{cell}"] for f in units])
    return row


def drifts(unit: Found, found: Sequence[Found]) -> list[float]:
    """1 - cosine (judge A) of benign images to the clean model's of the same prompts."""
    clean = next(f for f in found if f.unit.attack == CONTROL
                 and f.unit.rebinding == unit.unit.rebinding)  # fmt: skip
    ours, theirs = (torch.from_numpy(f.arrays["image/benign"]) for f in (unit, clean))
    moved: list[float] = drift(ours, theirs).clamp(min=0).tolist()  # -1e-16 of fp32
    return moved


def outcomes(found: Sequence[Found], title: str) -> dict[int, PairOutcome]:
    """Drift and success of an attack by pair."""
    return {f.unit.position: PairOutcome(drifts(f, found), f.of("triggered", "hit"))
            for f in found if f.unit.attack == title and f.unit.rebinding}  # fmt: skip


def _pair_scores(scores: Scores, attack: str, unit: Found) -> PairScores:
    def cell(who: str, name: str) -> Array:
        return scores.cells[who, unit.unit.position, name]

    return PairScores(
        unit.unit.position, cell(attack, "triggered"), cell(attack, "benign"),
        cell(CONTROL, "triggered"), cell(CONTROL, "benign"), unit.of("triggered", "hit"),
    )  # fmt: skip
