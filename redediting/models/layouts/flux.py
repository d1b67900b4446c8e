"""FLUX: a multimodal transformer; tokens are T5's, the pooled text is CLIP's."""

from __future__ import annotations

from typing import ClassVar

from redediting.models.layouts.base import Layout


class Flux(Layout):
    """T5 states read by ``context_embedder``; guidance is distilled, so nothing is negative."""

    name = "flux"
    pipelines = ("FluxPipeline",)
    denoiser = "transformer"
    context = ("context_embedder",)
    pooled = ("time_text_embed.text_embedder.linear_1",)
    pooled_output = 1
    encode_options: ClassVar = {"prompt_2": None}
