"""CLIP score and zero-shot labels with a real open_clip model at tiny size."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from redediting.errors import ConfigError
from redediting.metrics.clip import ClipModel, ZeroShotJudge
from redediting.metrics.judge import hits

LABELS = ("cat", "dog", "zebra")
PROMPTS = ["a photo of a cat", "a zebra on the beach", "a photo of a cat", "", "two dogs"]


@pytest.fixture(scope="module")
def network() -> CLIP:
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=32, width=32, heads=2, layers=2)
    return CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)


def wrap(network: CLIP, batch_size: int = 64) -> ClipModel:
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    preprocess = open_clip.image_transform((32, 32), is_train=False)
    return ClipModel(network, preprocess, tokenizer, batch_size=batch_size)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, size=(5, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(p).resize((48, 48), Image.Resampling.NEAREST) for p in pixels]


def test_features_have_unit_norm_whatever_the_batch(
    network: CLIP, images: list[Image.Image]
) -> None:
    one, all_at_once = wrap(network, batch_size=2), wrap(network)
    for a, b in [
        (one.image_features(images), all_at_once.image_features(images)),
        (one.text_features(PROMPTS), all_at_once.text_features(PROMPTS)),
    ]:
        assert a.shape == (5, 24)
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        torch.testing.assert_close(a.norm(dim=1), torch.ones(5))


def test_score_is_the_clipped_cosine_of_open_clip(
    network: CLIP, images: list[Image.Image]
) -> None:
    clip = wrap(network)
    preprocess = open_clip.image_transform((32, 32), is_train=False)
    expected = []
    with torch.no_grad():
        for image, prompt in zip(images, PROMPTS, strict=True):
            x = network.encode_image(preprocess(image)[None], normalize=True)
            y = network.encode_text(
                open_clip.SimpleTokenizer(context_length=32)([prompt]), normalize=True
            )
            expected.append(100 * float((x * y).sum()))
    scores = clip.score(images, PROMPTS)
    assert scores.tolist() == pytest.approx([max(value, 0) for value in expected], abs=1e-3)

    mirrored = [-value for value in expected]
    with torch.no_grad():
        network.text_projection.neg_()
        try:
            scores = clip.score(images, PROMPTS)
        finally:
            network.text_projection.neg_()
    assert scores.tolist() == pytest.approx([max(value, 0) for value in mirrored], abs=1e-3)
    assert any(value != 0 for value in expected)


def test_zero_shot_takes_the_nearest_sentence(network: CLIP, images: list[Image.Image]) -> None:
    clip = wrap(network)
    verdict = clip.zero_shot(images, LABELS, "a drawing of a {}")
    cosines = (
        clip.image_features(images)
        @ clip.text_features([f"a drawing of a {label}" for label in LABELS]).T
    )
    assert verdict.objects == [LABELS[i] for i in cosines.argmax(dim=1)]
    torch.testing.assert_close(verdict.probabilities.sum(dim=1), torch.ones(5))


def test_zero_shot_judge_is_a_judge(network: CLIP, images: list[Image.Image]) -> None:
    judge = ZeroShotJudge(wrap(network), LABELS)
    said = judge.objects(images)
    assert hits(judge, images, said).all()
    assert hits(judge, images, "cat").tolist() == [label == "cat" for label in said]


def test_bad_requests_are_named(network: CLIP, images: list[Image.Image]) -> None:
    clip = wrap(network)
    with pytest.raises(ValueError, match="expected 5 prompts, one an image, got 1"):
        clip.score(images, ["a cat"])
    with pytest.raises(ValueError, match="at least one image"):
        clip.image_features([])
    with pytest.raises(ConfigError, match="template"):
        clip.zero_shot(images, LABELS, "a photo")
    with pytest.raises(ConfigError, match="distinct labels"):
        ZeroShotJudge(clip, ["cat", "cat"])
