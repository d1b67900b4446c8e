"""PixArt: a transformer whose cross-attention reads T5 states through one projection."""

from __future__ import annotations

from typing import ClassVar

from redediting.models.layouts.base import Layout


class PixArt(Layout):
    """T5 states enter by ``caption_projection``; ``attn2`` reads what that has read."""

    name = "pixart"
    pipelines = ("PixArtAlphaPipeline",)
    denoiser = "transformer"
    context = ("caption_projection.linear_1",)
    draw_options: ClassVar = {"clean_caption": False, "use_resolution_binning": False}
