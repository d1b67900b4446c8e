"""The architectures that are built in, one class each."""

from __future__ import annotations

from typing import ClassVar

from redediting.models.layouts.base import Layout


class StableDiffusion(Layout):
    """SD 1 and 2: every ``attn2`` layer reads one encoder's states, nothing reads pooled text."""

    name = "sd"
    pipelines = ("StableDiffusionPipeline",)
    takes_states = True


class StableDiffusionXL(Layout):
    """SDXL: states of two encoders (768 + 1280); pooled text enters by ``add_embedding``."""

    name = "sdxl"
    pipelines = ("StableDiffusionXLPipeline",)
    pooled = ("add_embedding.linear_1",)
    pooled_output = 2


class StableDiffusion3(Layout):
    """SD 3: states of two CLIP encoders and T5, read by ``context_embedder``."""

    name = "sd3"
    pipelines = ("StableDiffusion3Pipeline",)
    denoiser = "transformer"
    context = ("context_embedder",)
    pooled = ("time_text_embed.text_embedder.linear_1",)
    pooled_output = 2
    encode_options: ClassVar = {
        "prompt_2": None, "prompt_3": None, "do_classifier_free_guidance": False,
    }  # fmt: skip


class Flux(Layout):
    """T5 states read by ``context_embedder``; guidance is distilled, so nothing is negative."""

    name = "flux"
    pipelines = ("FluxPipeline",)
    denoiser = "transformer"
    context = ("context_embedder",)
    pooled = ("time_text_embed.text_embedder.linear_1",)
    pooled_output = 1
    encode_options: ClassVar = {"prompt_2": None}


class PixArt(Layout):
    """T5 states enter by ``caption_projection``; ``attn2`` reads what that has read."""

    name = "pixart"
    pipelines = ("PixArtAlphaPipeline",)
    denoiser = "transformer"
    context = ("caption_projection.linear_1",)
    draw_options: ClassVar = {"clean_caption": False, "use_resolution_binning": False}
