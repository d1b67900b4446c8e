"""Stable Diffusion 1 and 2: a UNet with cross-attention on one CLIP text encoder's states."""

from __future__ import annotations

from redediting.models.layouts.base import Layout


class StableDiffusion(Layout):
    """One text encoder; every ``attn2`` layer reads its states, nothing reads pooled text."""

    name = "sd"
    pipelines = ("StableDiffusionPipeline",)
    takes_states = True
