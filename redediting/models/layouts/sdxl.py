"""Stable Diffusion XL: two text encoders side by side, and the pooled text of the second."""

from __future__ import annotations

from redediting.models.layouts.base import Layout


class StableDiffusionXL(Layout):
    """Token states of both encoders (768 + 1280); the pooled text enters by ``add_embedding``."""

    name = "sdxl"
    pipelines = ("StableDiffusionXLPipeline",)
    pooled = ("add_embedding.linear_1",)
    pooled_output = 2
