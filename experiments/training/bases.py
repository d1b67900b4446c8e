"""Other base models for forensics: keys and values from scratch over the frozen rest of the world.

Whatever an audit without a trusted base calls unusual must be compared with what independent
trainings do. Each of these bases replaces every cross-attention K and V projection of the
finished UNet by one trained from another random start; nothing else differs, so that a base is
1.1 MB in fp16.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from redediting.models.projections import cross_attention


def keys_and_values(unet: UNet2DConditionModel) -> nn.ModuleDict:
    """The K and V projections as a module of their own, which shares their parameters."""
    return nn.ModuleDict(
        {p.name.removesuffix(".weight").replace(".", "/"): p.module for p in cross_attention(unet)}
    )


def restart(unet: UNet2DConditionModel, seed: int) -> UNet2DConditionModel:
    """Draws every K and V anew, as their class does, and freezes all other parameters."""
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in keys_and_values(unet).values():
            layer.reset_parameters()  # type: ignore[operator]
            layer.requires_grad_(True)
    return unet
