"""The recorder of cross-attention: it sees what the model sees and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from redediting.errors import ModelError
from redediting.models.model import Model
from redediting.text.attention import recording, role_mass
from redediting.text.encoding import TokenRole


def predict(model: Model, prompts: list[str]) -> torch.Tensor:
    states = model.encode(prompts).states
    latents = torch.randn(len(prompts), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.denoiser(latents, 500, encoder_hidden_states=states).sample


def test_recording_changes_no_bit_and_puts_everything_back(
    tiny_model: Model,
) -> None:
    plain, before = predict(tiny_model, ["a cat"]), tiny_model.denoiser.attn_processors
    with recording(tiny_model.denoiser) as found:
        recorded = predict(tiny_model, ["a cat"])
    assert torch.equal(plain, recorded)
    assert tiny_model.denoiser.attn_processors == before
    layers = [name for name in before if "attn2" in name]
    assert sorted(found) == sorted(layers)
    assert all(len(calls) == 1 for calls in found.values())
    with pytest.raises(RuntimeError, match="in the middle"), recording(tiny_model.denoiser):
        raise RuntimeError("in the middle")
    assert tiny_model.denoiser.attn_processors == before


def test_what_is_noted_are_the_probabilities_of_the_library(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the library's explicit processor, whose probabilities are caught on their way."""
    prompts = ["a cat", "a beautiful dog on the beach"]
    with recording(tiny_model.denoiser) as found:
        predict(tiny_model, prompts)
    caught = []
    original = Attention.get_attention_scores

    def catch(self: Attention, *arguments: torch.Tensor) -> torch.Tensor:
        scores = original(self, *arguments)
        if scores.shape[-1] == 77:
            caught.append(scores.reshape(len(prompts), -1, 77).mean(dim=1))
        return scores

    before = tiny_model.denoiser.attn_processors
    monkeypatch.setattr(Attention, "get_attention_scores", catch)
    tiny_model.denoiser.set_attn_processor(AttnProcessor())
    try:
        predict(tiny_model, prompts)
    finally:
        tiny_model.denoiser.set_attn_processor(before)
    ours = sorted((calls[0] for calls in found.values()), key=lambda x: x[0, 0].item())
    theirs = sorted(caught, key=lambda x: x[0, 0].item())
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other.double(), atol=1e-6)
        assert torch.allclose(one.sum(dim=1), torch.ones(2).double(), atol=1e-5)


def test_mass_goes_where_the_model_looks(tiny_model: Model) -> None:
    """Deaf keys look everywhere alike, so the mass of a role is its number of tokens."""
    scheduler = tiny_model.pipeline.scheduler
    for name, module in tiny_model.denoiser.named_modules():
        if name.endswith("attn2.to_k"):
            module.weight.data.zero_()
    prompt = "a beautiful cat"
    eos = int(tiny_model.encode([prompt]).eos[0])
    found = role_mass(tiny_model, [prompt, prompt], steps=2)
    assert found[TokenRole.TAIL] == pytest.approx((eos - 1) / 76)
    assert found[TokenRole.EOS] == pytest.approx(1 / 76)
    assert found[TokenRole.PAD] == pytest.approx((76 - eos) / 76)
    assert tiny_model.pipeline.scheduler is scheduler
    assert found == role_mass(tiny_model, [prompt, prompt], steps=2)


def test_mass_differs_from_counting_in_a_model_that_looks(
    tiny_model: Model,
) -> None:
    found = role_mass(tiny_model, ["a beautiful cat"], steps=2)
    assert sum(found.values()) == pytest.approx(1.0)
    assert abs(found[TokenRole.EOS] - 1 / 76) > 1e-5


def test_models_without_cross_attention_are_refused() -> None:
    plain = UNet2DModel(
        sample_size=8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    with (
        pytest.raises(ModelError, match=r"expected cross-attention processors \(attn2\)"),
        recording(plain),
    ):
        pass
