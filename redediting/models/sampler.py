"""How images are sampled: the settings that a result depends on, and the batch size beside."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from redediting.config import Config


class Sampler(Config):
    """Settings of the sampler.

    Attributes:
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 switches it off.
        batch_size: images a call; bounds memory, has no influence on an image but float noise.
        autocast: ``bf16`` runs denoiser and VAE in bfloat16 autocast; the text encoder never is.
        height: in pixels; None takes the model's own.
        width: in pixels; None takes the model's own.

    Example:
        >>> from redediting import Sampler
        >>> Sampler(steps=12).guidance
        5.0
    """

    steps: int = Field(default=20, ge=1)
    guidance: float = Field(default=5.0, ge=1.0)
    batch_size: int = Field(default=64, ge=1)
    autocast: Literal["off", "bf16"] = "off"
    height: int | None = Field(default=None, ge=8)
    width: int | None = Field(default=None, ge=8)
