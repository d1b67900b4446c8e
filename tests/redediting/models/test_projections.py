"""Which matrices read text states."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from redediting.errors import ModelError
from redediting.models.layouts import LAYOUTS
from redediting.models.model import Model


def test_keys_and_values_of_every_cross_attention(tiny_model: Model) -> None:
    found = tiny_model.projections
    state = tiny_model.denoiser.state_dict()
    expected = [n for n in state if "attn2.to_k" in n or "attn2.to_v" in n]
    assert [projection.name for projection in found] == expected
    assert [projection.kind for projection in found] == ["key", "value"] * (len(found) // 2)
    for projection in found:
        assert projection.module.weight.data_ptr() == state[projection.name].data_ptr()
        assert projection.module.in_features == 32


def test_fingerprint_sees_one_bit_but_not_an_exact_change_of_dtype(
    tiny_model: Model,
) -> None:
    found = tiny_model.projections
    for projection in found:
        projection.module.weight.data = projection.module.weight.data.half()
    half = tiny_model.base_fingerprint()
    for projection in found:
        projection.module.weight.data = projection.module.weight.data.float()
    assert tiny_model.base_fingerprint() == half
    weight = found[-1].module.weight.data
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert tiny_model.base_fingerprint() != half


def test_models_without_cross_attention_are_refused() -> None:
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    message = r"expected cross-attention .*, got UNet2DModel without; choose a text-conditioned"
    with pytest.raises(ModelError, match=message):
        LAYOUTS.make("sd").token_projections(unet)
