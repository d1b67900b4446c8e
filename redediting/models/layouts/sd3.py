"""Stable Diffusion 3: a multimodal transformer; all tokens enter by one matrix."""

from __future__ import annotations

from typing import ClassVar

from redediting.models.layouts.base import Layout


class StableDiffusion3(Layout):
    """States of two CLIP encoders and T5, read by ``context_embedder``."""

    name = "sd3"
    pipelines = ("StableDiffusion3Pipeline",)
    denoiser = "transformer"
    context = ("context_embedder",)
    pooled = ("time_text_embed.text_embedder.linear_1",)
    pooled_output = 2
    encode_options: ClassVar = {
        "prompt_2": None,
        "prompt_3": None,
        "do_classifier_free_guidance": False,
    }
