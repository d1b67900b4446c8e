"""A subject small enough for milliseconds: the tiny model and an untrained judge A."""

from __future__ import annotations

from collections.abc import Callable

import open_clip
import pytest
import torch

from defenses.detectors.inputs import Subject
from redediting.generation import Job
from redediting.metrics.clip import ClipModel
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.world.judges import wrap_clip

PROMPTS = ("a photo of a beautiful cat on the beach", "a red dog", "an old car in a room")
SAMPLER = Sampler(steps=7, guidance=3.0, batch_size=4)
Subjects = Callable[..., Subject]


@pytest.fixture(scope="session")
def clip(model_factory: Callable[[int], Model]) -> ClipModel:
    """Judge A's class with random weights."""
    torch.manual_seed(0)
    tokenizer = model_factory(0).tokenizer
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 64, "patch_size": 32, "width": 64, "layers": 1},
        text_cfg={"context_length": 77, "vocab_size": len(tokenizer), "width": 64, "layers": 1},
    )
    return wrap_clip(model, tokenizer)


@pytest.fixture
def subjects(tiny_model: Model, clip: ClipModel) -> Subjects:
    """Makes a subject of prompts, each with its own noise."""

    def make(*prompts: str, sampler: Sampler = SAMPLER, first: int = 0) -> Subject:
        jobs = [Job(prompt, first + i) for i, prompt in enumerate(prompts)]
        nouns = ("cat", "dog", "car")
        return Subject(tiny_model, jobs, sampler=sampler, clip=clip, nouns=nouns,
                       trusted=tiny_model)  # fmt: skip

    return make
