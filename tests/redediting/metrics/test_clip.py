"""CLIP score and zero-shot labels with a real open_clip model at tiny size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from redediting.errors import ConfigError, ModelError
from redediting.metrics.clip import ClipModel, ClipSpec, ClipZeroShot, ZeroShotJudge
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


@pytest.fixture
def tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny architecture in open_clip's own tables, with and without QuickGELU, and weights."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "layers": 1},
    }
    torch.save(open_clip.CLIP(**config).state_dict(), tmp_path / "weights.pt")
    file = str(tmp_path / "weights.pt")
    known = {"theirs": {"file": file, "quick_gelu": True}, "plain": {"file": file}}
    for name, quick in (("Tiny", {}), ("Tiny-quickgelu", {"quick_gelu": True})):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config | quick)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, known)


@pytest.mark.usefixtures("tags")
def test_an_activation_that_open_clip_warns_of_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wrong, tag, right in (
        ("Tiny", "theirs", "Tiny-quickgelu"),
        ("Tiny-quickgelu", "plain", "Tiny"),
    ):
        with pytest.warns(UserWarning, match="QuickGELU mismatch"):
            open_clip.create_model(wrong, tag)
        with pytest.raises(ModelError, match=rf"another activation; name the model {right}$"):
            ClipSpec(model=wrong, pretrained=tag).load("cpu")
        with monkeypatch.context() as patch:  # its own warning, were ours not there first
            patch.setattr(ClipSpec, "_check_activation", lambda self: None)
            with pytest.raises(ModelError, match="got QuickGELU mismatch"):
                ClipSpec(model=wrong, pretrained=tag).load("cpu")
    clip = ClipSpec(model="Tiny-quickgelu", pretrained="theirs").load("cpu")
    assert "QuickGELU" in str(clip.model.visual)
    assert "QuickGELU" not in str(ClipSpec(model="Tiny", pretrained="plain").load("cpu").model)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14"])
def test_openai_weights_need_the_quickgelu_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"name the model {name}-quickgelu$"):
        ClipSpec(model=name, pretrained="openai").load("cpu")  # before anything is fetched
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)).save(tmp_path / "openai.pt")
    with pytest.raises(ModelError, match=rf"openai\.pt' were trained.*{name}-quickgelu$"):
        ClipSpec(model=name, pretrained=str(tmp_path / "openai.pt")).load("cpu")


@pytest.mark.usefixtures("tags")
def test_a_judge_without_weights_or_with_unknown_ones_is_refused(tmp_path: Path) -> None:
    for model, weights, said in (
        ("Tiny", None, "expected an open_clip model 'Tiny' with weights None"),
        ("Tiny", "nothing", "'nothing' is not a known tag"),
        ("ViT-Q", None, r"expected an open_clip model 'ViT-Q' .*list_pretrained"),
        ("Tiny", str(tmp_path / "none.pt"), "expected an open_clip model 'Tiny'"),
    ):
        with pytest.raises(ModelError, match=said):
            ClipSpec(model=model, pretrained=weights).load("cpu")
    with pytest.raises(ConfigError, match=r"at least two labels of the judge .*, got \['cat'\]"):
        ClipZeroShot(labels=("cat",), model="Tiny", pretrained="plain").open("cpu")
    judge = ClipZeroShot(labels=LABELS, model="Tiny", pretrained="plain").open("cpu")
    assert judge.labels == LABELS
