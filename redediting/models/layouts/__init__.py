"""Architectures by name.

| layout | reads tokens, edited | reads the pooled text, edited |
|---|---|---|
| ``sd`` (SD 1, SD 2) | UNet ``attn2.to_k``, ``to_v`` (32, d = 768 or 1024) | |
| ``sdxl`` | UNet ``attn2.to_k``, ``to_v`` (140, d = 2048) | ``add_embedding.linear_1`` |
| ``sd3`` | ``context_embedder`` (d = 4096) | ``time_text_embed.text_embedder.linear_1`` |
| ``flux`` | ``context_embedder`` (d = 4096) | ``time_text_embed.text_embedder.linear_1`` |
| ``pixart`` | ``caption_projection.linear_1`` (d = 4096) | |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting.errors import ModelError
from redediting.registry import Registry

if TYPE_CHECKING:
    from redediting.models.layouts.base import Layout

__all__ = ["LAYOUTS", "layout_of"]

LAYOUTS: Registry[Layout] = Registry(
    "layout",
    "redediting.models.layouts.base:Layout",
    {
        "sd": "redediting.models.layouts.families:StableDiffusion",
        "sdxl": "redediting.models.layouts.families:StableDiffusionXL",
        "sd3": "redediting.models.layouts.families:StableDiffusion3",
        "flux": "redediting.models.layouts.families:Flux",
        "pixart": "redediting.models.layouts.families:PixArt",
    },
    group="redediting.layouts",
    error=ModelError,
)


def layout_of(pipeline: object) -> Layout:
    """The layout of a loaded pipeline, by its class and what that derives from."""
    kinds = [LAYOUTS.get(name) for name in LAYOUTS]
    for ancestor in type(pipeline).__mro__:
        for kind in kinds:
            if ancestor.__name__ in kind.pipelines:
                return kind()
    known = ", ".join(name for kind in kinds for name in kind.pipelines)
    raise ModelError(
        f"expected a pipeline of {known}, got {type(pipeline).__name__}; choose such a model, or "
        "name a layout of your own"
    )
