"""Measures the world against its bars, on scenes and captions that no part of it saw."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.training.autoencoder import reconstruct
from experiments.training.data import render_all
from experiments.training.judges import labels
from experiments.training.text import neutral_sin2, noun_sin2
from redediting.concepts.language import Language
from redediting.generation import Job, draw
from redediting.metrics.clip import ClipModel
from redediting.metrics.intervals import wilson
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.world.captions import Caption, captions, held_out, held_out_combination
from redediting.world.judges import JudgeB

HEADS = ("object", "colour", "pattern", "companion", "place", "style")
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
# contact sheets: pictures a row, zoom, lines of caption, pixels a line, between pictures, a letter
_COLUMNS, _ZOOM, _LINES, _LINE, _GAP, _LETTER = 10, 2, 3, 11, 6, 6


def rate(key: str, hits: Sequence[bool]) -> dict[str, Any]:
    """A rate, its Wilson interval and its n; all None and n = 0 where nothing was counted."""
    if not hits:
        return {key: None, f"{key}_ci": None, f"{key}_n": 0}
    found = wilson(sum(map(bool, hits)), len(hits))
    return {key: found.value, f"{key}_ci": found.bounds, f"{key}_n": found.n}


def rates(hits: Mapping[str, Sequence[bool]], key: str = "{}") -> dict[str, Any]:
    """The rates of several heads."""
    found = (rate(key.format(head), own) for head, own in hits.items())
    return {name: value for one in found for name, value in one.items()}


def mean(key: str, values: Sequence[float]) -> dict[str, Any]:
    """A mean with its normal 95 % interval and its n."""
    centre, half = np.mean(values), 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    interval = [float(centre - half), float(centre + half)]
    return {key: float(centre), f"{key}_ci": interval, f"{key}_n": len(values)}


def judged(
    judge: JudgeB, images: torch.Tensor | Sequence[Image.Image], items: Sequence[Caption]
) -> dict[str, list[bool]]:
    """Hits of judge B by head, on pictures or uint8 pixels (n, size, size, 3).

    Colour counts where the caption names one, place where it names one, pattern and companion
    everywhere ("none" is a label); heads that the judge lacks stay empty.
    """
    if isinstance(images, torch.Tensor):
        images = [Image.fromarray(image) for image in images.numpy()]
    look = judge.look(images)
    hits: dict[str, list[bool]] = {}
    for head in HEADS:
        said = getattr(look, head)
        counted = [
            (label, labels(item)[head])
            for label, item in zip(said, items, strict=bool(said))
            if not (head == "colour" and item.colour is None)
            and not (head == "place" and not item.places_named)
        ]
        hits[head] = [got == wanted for got, wanted in counted]
    return hits


def text_angles(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, language: Language
) -> dict[str, Any]:
    """Median sin² of states: of two nouns, and with and without a neutral adjective."""
    last, end = neutral_sin2(encoder, tokenizer, language)
    return {
        "noun_sin2": float(np.median(noun_sin2(encoder, tokenizer, language))),
        "neutral_sin2": float(np.median(last)),
        "neutral_sin2_eos": float(np.median(end)),
        "neutral_sin2_n": len(last),
    }


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], path: Path) -> None:
    """Writes a PNG with every picture at twice its size."""
    side = pictures[0].width * _ZOOM
    width, height = side + _GAP, side + _LINES * _LINE + _GAP
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % _COLUMNS * width, i // _COLUMNS * height
        sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        lines = textwrap.wrap(caption, side // _LETTER)[:_LINES]
        pen.multiline_text((x, y + side), "\n".join(lines), fill="black", spacing=0, font_size=10)
    sheet.save(path, optimize=True)


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

    ``n`` single-object test captions are drawn and as many test scenes judged. ``bundle`` is the
    folder of the weights; ``training.json`` there holds the text tower's figure, which needs the
    image tower that does not ship. The sample sheets are written to ``sheets`` where it is given.
    """

    def drawn_from(jobs: Sequence[Job]) -> list[Image.Image]:
        return [image for _, image in draw(model, jobs, sampler=sampler, progress=True)]

    real_items = list(islice(captions("test", seed=1, single=True, language=language), n))
    real = torch.from_numpy(render_all(real_items, progress=False))
    on_real = judged(judge_b, real, real_items)
    vae: Any = model.component("vae")
    decoded, decibels = reconstruct(vae, real)
    on_decoded = judged(judge_b, decoded, real_items)
    pictures = [Image.fromarray(image) for image in real.numpy()]
    zero_shot = judge_a.zero_shot(pictures, judge_b.labels, "a photo of a {}").objects
    a_hits = [o == c.concept for o, c in zip(zero_shot, real_items, strict=True)]

    items = held_out(n, seed=0, language=language)
    started = time.monotonic()
    drawn = drawn_from([Job(item.text, seed=i) for i, item in enumerate(items)])
    seconds = (time.monotonic() - started) / n
    on_drawn = judged(judge_b, drawn, items)
    stream = captions("composition", single=True, language=language)
    unseen = (
        caption
        for caption in stream
        if any(
            word and held_out_combination(caption.concept, word)
            for word in (caption.colour, caption.pattern)
        )
    )
    novel = list(islice(unseen, max(1, n // 4)))
    novel_drawn = drawn_from([Job(c.text, seed=i) for i, c in enumerate(novel)])
    on_novel = judged(judge_b, novel_drawn, novel)
    if sheets is not None:
        texts = [item.text for item in items[:SHOWN]]
        contact_sheet(drawn[:SHOWN], texts, sheets / "samples.png")
        jobs = [
            Job(f"a photo of a {what}", seed=i) for i in range(MINIMAL_SEEDS) for what in MINIMAL
        ]
        contact_sheet(drawn_from(jobs), [j.prompt for j in jobs], sheets / "minimal.png")

    records = bundle / "training.json"
    training = json.loads(records.read_text()) if records.is_file() else {}
    contrastive = training.get("text", {}).get("figures", {})
    figures: dict[str, Any] = {}
    for head in ("object", "colour", "place"):
        figures |= rate(f"{head}_accuracy", on_drawn[head])
    for head in ("pattern", "companion"):  # where the caption asks for one
        hits = zip(on_drawn[head], items, strict=False)
        figures |= rate(f"{head}_accuracy", [hit for hit, item in hits if getattr(item, head)])
    for style in dict.fromkeys(item.style for item in items):
        hits = zip(on_drawn["object"], items, strict=True)
        found = rate("style_accuracy", [hit for hit, item in hits if item.style == style])
        for key, value in found.items():
            figures.setdefault(key, {})[style] = value
    figures |= rate("judge_a_object", a_hits)
    for head in HEADS:
        figures |= rate(f"judge_b_{head}", on_real[head])
        figures |= rate(f"judge_b_{head}_reconstructed", on_decoded[head])
    for head in ("object", "colour", "pattern"):
        figures |= rate(f"composition_{head}", on_novel[head])
    tokenizer: Any = model.tokenizer
    angles = text_angles(model.text_encoder, tokenizer, language)
    files = [path for path in bundle.rglob("*") if path.is_file()]
    return figures | {
        **mean("vae_psnr", decibels),
        **{f"text_contrastive{end}": contrastive.get(f"text_contrastive{end}")
           for end in ("", "_ci", "_n")},
        **{key: value for key, value in angles.items() if not key.endswith("_n")},
        "megabytes": sum(path.stat().st_size for path in files) / 2**20,
        "seconds_per_image": seconds,
        "n": n,
        "steps": sampler.steps,
        "guidance": sampler.guidance,
    }  # fmt: skip
