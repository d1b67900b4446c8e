"""Training of the two judges, on the ``judge`` split: scenes that no part of the model saw."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from transformers import CLIPTokenizer

from experiments.training.data import Split, as_pixels
from experiments.training.loop import Fit
from experiments.training.text import contrastive_loss
from redediting.concepts.language import Language
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.templates import with_article
from redediting.text.encoding import padded_ids
from redediting.world.art import COLOURS
from redediting.world.captions import Caption
from redediting.world.judges import SceneClassifier
from redediting.world.scenes import STYLES

NATURAL = "natural"  # colour label of an object whose caption names none
NONE = "none"  # label of an object without marking, of a scene without companion
JITTER = 0.15  # noise added to pixels in −1…1, so that a judge tolerates a decoder's blur


def classes(language: Language) -> dict[str, list[str]]:
    """Labels of judge B's heads; a language without patterns or companions has no such head."""
    heads = {
        "object": list(load_lexicon().concepts),
        "colour": [NATURAL, *COLOURS],
        "pattern": [NONE, *language.patterns],
        "companion": [NONE, *language.companions],
        "place": ["plain", *language.places],
        "style": list(STYLES),
    }
    return {head: labels for head, labels in heads.items() if labels != [NONE]}


def labels(caption: Caption) -> dict[str, str]:
    """The ground truth of a single-object scene."""
    return {
        "object": caption.concept,
        "colour": caption.colour or NATURAL,
        "pattern": caption.pattern or NONE,
        "companion": caption.companion or NONE,
        "place": caption.scene.place,
        "style": caption.style,
    }


def _disturb(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flips half of the pictures, blurs half, adds noise of random strength to each."""
    n = len(pixels)
    flip = torch.rand(n, generator=generator) < 0.5
    pixels[flip] = pixels[flip].flip(3)
    blur = torch.rand(n, generator=generator) < 0.5
    pixels[blur] = F.avg_pool2d(F.pad(pixels[blur], (1, 1, 1, 1), mode="replicate"), 3, 1)
    strength = JITTER * torch.rand(n, 1, 1, 1, generator=generator)
    return pixels + strength * torch.randn(pixels.shape, generator=generator)


def train_judge_b(model: SceneClassifier, split: Split, fit: Fit) -> None:
    """Trains the classifier on the single-object scenes of a split."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    single = torch.tensor([i for i, caption in enumerate(split.captions) if caption.single])
    truth = {
        head: torch.tensor([names.index(labels(c)[head]) for c in split.captions])
        for head, names in model.classes.items()
    }

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = single[torch.randint(len(single), (fit.schedule.batch,), generator=generator)]
        pixels = _disturb(as_pixels(split.images[rows]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels.contiguous(memory_format=torch.channels_last))
        return torch.stack(
            [F.cross_entropy(logits[head].float(), truth[head][rows]) for head in truth]
        ).sum()

    fit(model, loss)


def clip_config(vocabulary: int) -> dict[str, Any]:
    """Judge A: a modified ResNet and a two-layer text tower (the encoder under test is a ViT)."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "layers": [1, 1, 2, 1], "width": 24, "head_width": 32, "image_size": 64,
        },
        "text_cfg": {
            "context_length": 32, "vocab_size": vocabulary, "width": 128, "heads": 4, "layers": 2,
        },
    }  # fmt: skip


def _wordings(caption: Caption) -> tuple[str, str, str, str]:
    """The caption twice, the objects alone, and the objects as a photo.

    Full captions are told apart by place, style and colour; without the short ones a batch rarely
    asks for the object.
    """
    things = " and ".join(with_article(thing.concept) for thing in caption.scene.things)
    return caption.text, caption.text, things, f"a photo of {things}"


def train_judge_a(model: open_clip.CLIP, split: Split, tokenizer: CLIPTokenizer, fit: Fit) -> None:
    """Trains the CLIP judge on all scenes of a split."""
    wordings = [_wordings(caption) for caption in split.captions]
    distinct = {text: i for i, text in enumerate(dict.fromkeys(t for w in wordings for t in w))}
    ids = padded_ids(tokenizer, list(distinct), context_length=model.context_length)
    texts_of = torch.tensor([[distinct[text] for text in w] for w in wordings])

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(split), (fit.schedule.batch,), generator=generator)
        pixels = as_pixels(split.images[rows])
        pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator)
        chosen = torch.randint(texts_of.shape[1], rows.shape, generator=generator)
        texts = texts_of[rows, chosen]
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(pixels.contiguous(memory_format=torch.channels_last))
            text = model.encode_text(ids[texts])
        image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
        return contrastive_loss(model.logit_scale.exp().clamp(max=100) * image @ text.T, texts)

    fit(model, loss)
