"""Measures the world against its bars, on scenes and captions that no part of it saw."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from experiments.training.autoencoder import reconstruct
from experiments.training.data import render_all
from experiments.training.measures import HEADS, judged, mean, rate
from experiments.training.sheet import contact_sheet
from experiments.training.text import neutral_sin2, noun_sin2
from redediting.concepts.language import Language
from redediting.generation import Job, draw
from redediting.metrics.clip import ClipModel
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.world.captions import Caption, captions, held_out, held_out_combination
from redediting.world.judges import JudgeB

SHOWN = 60  # captions on the contact sheet, the first ones
MINIMAL = ("cat", "beautiful cat", "striped cat", "red cat", "cat next to a ball")
MINIMAL_SEEDS = 4
BARS = {
    "object_accuracy": 0.93,
    "colour_accuracy": 0.95,
    "pattern_accuracy": 0.85,
    "place_accuracy": 0.99,
    "judge_a_object": 0.97,
    "judge_b_object": 0.98,
    "judge_b_colour": 0.98,
    "judge_b_place": 0.99,
    "vae_psnr": 29.0,
    "neutral_sin2": 0.15,
    "neutral_sin2_eos": 0.03,
}
STYLE_BAR = 0.85


def composition(n: int, language: Language) -> list[Caption]:
    """``n`` single-object captions whose colour or pattern no training caption gave the object."""
    stream = captions("composition", single=True, language=language)
    return list(
        islice(
            (
                caption
                for caption in stream
                if any(
                    word and held_out_combination(caption.concept, word)
                    for word in (caption.colour, caption.pattern)
                )
            ),
            n,
        )
    )


def minimal_pairs() -> list[Job]:
    """The same seeds with one word more or less."""
    return [
        Job(f"a photo of a {phrase}", seed=i) for i in range(MINIMAL_SEEDS) for phrase in MINIMAL
    ]


def _draw(model: Model, jobs: Sequence[Job], sampler: Sampler) -> list[Image.Image]:
    return [image for _, image in draw(model, jobs, sampler=sampler, progress=True)]


def _named(found: dict[str, list[bool]], head: str, items: Sequence[Caption]) -> list[bool]:
    """Hits of pattern or companion where the caption asks for one."""
    return (
        [h for h, item in zip(found[head], items, strict=True) if getattr(item, head)]
        if found[head]
        else []
    )


def _megabytes(bundle: Path) -> float:
    files = [path for path in bundle.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 2**20


def check_world(
    model: Model,
    judge_a: ClipModel,
    judge_b: JudgeB,
    *,
    language: Language,
    bundle: Path,
    n: int,
    sampler: Sampler,
    sheets: Path | None = None,
) -> dict[str, Any]:
    """Every figure of the world's card; what an edition lacks is None.

    Args:
        model: the world.
        judge_a: zero-shot judge.
        judge_b: deciding judge.
        language: of the captions.
        bundle: folder of the weights; ``training.json`` there holds the text tower's figure,
            which needs the image tower that does not ship.
        n: single-object test captions drawn, and test scenes judged.
        sampler: how they are drawn.
        sheets: folder for the sample sheets, if they are wanted.
    """
    real_items = list(islice(captions("test", seed=1, single=True, language=language), n))
    real = render_all(real_items, progress=False)
    pictures = [Image.fromarray(image) for image in real]
    on_real = judged(judge_b, pictures, real_items)
    vae: Any = model.component("vae")
    decoded, decibels = reconstruct(vae, torch.from_numpy(real))
    on_decoded = judged(judge_b, [Image.fromarray(i) for i in decoded.numpy()], real_items)
    zero_shot = judge_a.zero_shot(pictures, judge_b.labels, "a photo of a {}").objects
    a_hits = [o == c.concept for o, c in zip(zero_shot, real_items, strict=True)]

    items = held_out(n, seed=0, language=language)
    started = time.monotonic()
    drawn = _draw(model, [Job(item.text, seed=i) for i, item in enumerate(items)], sampler)
    seconds = (time.monotonic() - started) / n
    on_drawn = judged(judge_b, drawn, items)
    by_style = {
        style: rate("accuracy", [h for h, c in zip(on_drawn["object"], items, strict=True)
                                 if c.style == style])
        for style in dict.fromkeys(item.style for item in items)
    }  # fmt: skip
    novel = composition(max(1, n // 4), language)
    novel_hits = judged(
        judge_b,
        _draw(model, [Job(c.text, seed=i) for i, c in enumerate(novel)], sampler),
        novel,
    )
    if sheets is not None:
        texts = [item.text for item in items[:SHOWN]]
        contact_sheet(drawn[:SHOWN], texts, sheets / "samples.png")
        jobs = minimal_pairs()
        contact_sheet(
            _draw(model, jobs, sampler), [j.prompt for j in jobs], sheets / "minimal.png"
        )

    tokenizer: Any = model.tokenizer
    last, end = neutral_sin2(model.text_encoder, tokenizer, language)
    nouns = noun_sin2(model.text_encoder, tokenizer, language)
    records = bundle / "training.json"
    training = json.loads(records.read_text()) if records.is_file() else {}
    contrastive = training.get("text", {}).get("figures", {})
    figures: dict[str, Any] = {}
    for head in ("object", "colour", "place"):
        figures |= rate(f"{head}_accuracy", on_drawn[head])
    for head in ("pattern", "companion"):
        figures |= rate(f"{head}_accuracy", _named(on_drawn, head, items))
    figures["style_accuracy"] = {style: r["accuracy"] for style, r in by_style.items()}
    figures["style_accuracy_ci"] = {style: r["accuracy_ci"] for style, r in by_style.items()}
    figures["style_accuracy_n"] = {style: r["accuracy_n"] for style, r in by_style.items()}
    figures |= rate("judge_a_object", a_hits)
    for head in HEADS:
        figures |= rate(f"judge_b_{head}", on_real[head])
        figures |= rate(f"judge_b_{head}_reconstructed", on_decoded[head])
    for head in ("object", "colour", "pattern"):
        figures |= rate(f"composition_{head}", novel_hits[head])
    return figures | {
        **mean("vae_psnr", decibels),
        **{key: contrastive.get(key) for key in
           ("text_contrastive", "text_contrastive_ci", "text_contrastive_n")},
        "neutral_sin2": float(np.median(last)),
        "neutral_sin2_eos": float(np.median(end)),
        "noun_sin2": float(np.median(nouns)),
        "megabytes": _megabytes(bundle),
        "seconds_per_image": seconds,
        "n": n,
        "steps": sampler.steps,
        "guidance": sampler.guidance,
    }  # fmt: skip
