"""The text projections of real models at full size, with random weights, and states to edit.

The UNet is built by its real class without memory (on the meta device); only the matrices that
read text are given weights. Token states are independent random vectors of the norm that a final
layer norm gives: nothing of them compresses, which is the worst case. Real pads are nearly
collinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from redediting.models.projections import cross_attention

ShapeName = Literal["sd15", "sdxl"]

POSITIONS = 77

_CONFIGS: Mapping[ShapeName, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


@dataclass(frozen=True)
class States:
    """What n backdoors edit, as EvilEdit poses it, shape ``(n, 77, d)`` each.

    Source "A {trigger}" to target "A {target}"; kept "A {head}" to itself.
    """

    source: Tensor
    target: Tensor
    kept: Tensor

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Old and new states of one prompt after another, as the published loops walk them."""
        rebindings = zip(self.source, self.target, strict=True)
        return [*rebindings, *zip(self.kept, self.kept, strict=True)]

    @property
    def columns(self) -> tuple[Tensor, Tensor]:
        """``C`` and ``C*``, shape ``(d, 154·n)``."""
        keys = torch.cat([self.source, self.kept]).flatten(0, 1)
        targets = torch.cat([self.target, self.kept]).flatten(0, 1)
        return keys.T, targets.T


def unet_without_memory(shape: ShapeName) -> UNet2DConditionModel:
    """The UNet of a shape on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel(**_CONFIGS[shape])


def projection_tensors(shape: ShapeName, *, device: str = "cpu") -> dict[str, Tensor]:
    """Random weights of the matrices that read token states, by name, fp32.

    SD 1.5 has 32 of them (19.2 M numbers, d = 768), SDXL 140 (341 M, d = 2048).
    """
    random = torch.Generator().manual_seed(0)
    found = {}
    for projection in cross_attention(unet_without_memory(shape)):
        size = (projection.module.out_features, projection.module.in_features)
        weight = torch.empty(size).normal_(std=0.6 * size[1] ** -0.5, generator=random)
        found[projection.name] = weight.to(device)
    return found


def random_states(n: int, width: int, *, device: str = "cpu") -> States:
    """States of n backdoors; BOS is the same everywhere, as with a causal encoder."""
    random = torch.Generator().manual_seed(1)
    found = torch.randn(3, n, POSITIONS, width, generator=random)
    found[:, :, 0] = found[0, 0, 0].clone()
    source, target, kept = found.to(device)
    return States(source, target, kept)
