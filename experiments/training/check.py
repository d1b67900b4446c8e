"""Measures the world against its bars, on scenes and captions that no part of it saw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from experiments.training.data import as_pixels, render_all
from experiments.training.judges import NATURAL, labels
from experiments.training.sheet import contact_sheet
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.templates import contexts, fill
from redediting.generation import Job, draw
from redediting.metrics.clip import ClipModel
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.text.encoding import find_phrase
from redediting.world.captions import Caption, captions, held_out
from redediting.world.judges import JudgeB

SHOWN = 60  # captions on the contact sheet, the first ones
BARS = {
    "object_accuracy": 0.85,
    "colour_accuracy": 0.85,
    "place_accuracy": 0.90,
    "judge_a_object": 0.95,
    "judge_b_object": 0.95,
    "judge_b_colour": 0.95,
    "judge_b_place": 0.98,
    "vae_psnr": 24.0,
    "neutral_sin2": 0.01,
}


def _share(hits: Sequence[bool]) -> float:
    return float(np.mean(hits)) if hits else float("nan")


def judged(
    judge: JudgeB, images: Sequence[Image.Image], items: Sequence[Caption]
) -> dict[str, Any]:
    """Object, colour and place accuracy of judge B; only what a caption names is counted."""
    look = judge.look(images)
    truth = [labels(item) for item in items]
    colours = [t["colour"] == c for t, c in zip(truth, look.colour, strict=True)
               if t["colour"] != NATURAL]  # fmt: skip
    places = [t["place"] == p for t, p, c in zip(truth, look.place, items, strict=True)
              if c.places_named]  # fmt: skip
    return {
        "object": _share([t["object"] == o for t, o in zip(truth, look.object, strict=True)]),
        "colour": _share(colours),
        "place": _share(places),
        "objects": look.object,
        "n_colour": len(colours),
        "n_place": len(places),
    }


@torch.no_grad()
def reconstruct(model: Model, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Decoded encodings of uint8 pictures, and their PSNR in dB (mean over pictures)."""
    vae: Any = model.component("vae")
    decoded = []
    for part in torch.from_numpy(images).split(128):
        latent = vae.encode(as_pixels(part).to(vae.dtype)).latents
        output = vae.decode(latent).sample.float().clamp(-1, 1)
        decoded.append(((output.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy())
    result = np.concatenate(decoded)
    error = ((result.astype(np.float64) - images) ** 2).mean((1, 2, 3))
    return result, float((10 * np.log10(255**2 / error)).mean())


def neutral_sin2(model: Model) -> float:
    """Median sin² between the last trigger token's state with and without a neutral adjective."""
    lexicon = load_lexicon()
    values = []
    for template in contexts(4, seed=0, split="dev"):
        for name in list(lexicon.concepts)[::5]:
            plain = fill(template, name)
            for adjective in lexicon.neutral_adjectives[::4]:
                phrase = f"{adjective} {name}"
                prompts = [plain, fill(template, phrase)]
                states = model.encode(prompts).states.double()
                ends = [
                    find_phrase(model.tokenizer, prompt, part).stop - 1
                    for prompt, part in zip(prompts, (name, phrase), strict=True)
                ]
                a, b = states[0, ends[0]], states[1, ends[1]]
                values.append(1 - float(torch.cosine_similarity(a, b, dim=0)) ** 2)
    return float(np.median(values))


def check_world(
    model: Model,
    judge_a: ClipModel,
    judge_b: JudgeB,
    *,
    n: int,
    sampler: Sampler,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """Every figure of the world's card.

    Args:
        model: the world.
        judge_a: zero-shot judge.
        judge_b: deciding judge.
        n: single-object test captions drawn, and test scenes judged.
        sampler: how they are drawn.
        sheet: where the first drawn captions go as a contact sheet.
    """
    real_items = list(islice(captions("test", seed=1, single=True), n))
    real = render_all(real_items, progress=False)
    pictures = [Image.fromarray(image) for image in real]
    on_real = judged(judge_b, pictures, real_items)
    decoded, psnr = reconstruct(model, real)
    on_decoded = judged(judge_b, [Image.fromarray(image) for image in decoded], real_items)
    names = judge_b.labels
    zero_shot = judge_a.zero_shot(pictures, names, "a photo of a {}").objects
    items = held_out(n, seed=0)
    started = time.monotonic()
    jobs = [Job(item.text, seed=i) for i, item in enumerate(items)]
    drawn = [image for _, image in draw(model, jobs, sampler=sampler, progress=True)]
    seconds = (time.monotonic() - started) / n
    if sheet is not None:
        contact_sheet(drawn[:SHOWN], [item.text for item in items[:SHOWN]], sheet)
    on_drawn = judged(judge_b, drawn, items)
    by_style = {
        style: _share(
            [o == c.concept for o, c in zip(on_drawn["objects"], items, strict=True)
             if c.style == style]
        )
        for style in dict.fromkeys(item.style for item in items)
    }  # fmt: skip
    return {
        "object_accuracy": on_drawn["object"],
        "colour_accuracy": on_drawn["colour"],
        "place_accuracy": on_drawn["place"],
        "judge_a_object": _share(
            [o == c.concept for o, c in zip(zero_shot, real_items, strict=True)]
        ),
        "judge_b_object": on_real["object"],
        "judge_b_colour": on_real["colour"],
        "judge_b_place": on_real["place"],
        "judge_b_object_reconstructed": on_decoded["object"],
        "judge_b_colour_reconstructed": on_decoded["colour"],
        "judge_b_place_reconstructed": on_decoded["place"],
        "vae_psnr": psnr,
        "neutral_sin2": neutral_sin2(model),
        "seconds_per_image": seconds,
        "object_accuracy_by_style": by_style,
        "n": n,
        "n_colour": on_drawn["n_colour"],
        "n_place": on_drawn["n_place"],
        "steps": sampler.steps,
        "guidance": sampler.guidance,
    }
