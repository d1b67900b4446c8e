"""A denoising run's beginning: its noise, and the UNet's first call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from redediting.models.model import Model
from redediting.models.sampler import Sampler


def noise(model: Model, seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """Initial latents of each seed, as the model draws them, shape ``(n, channels, h, w)``."""
    height, width = model.image_size(sampler)
    return model.pipeline.prepare_latents(
        len(seeds),
        model.denoiser.config.in_channels,
        height,
        width,
        model.denoiser.dtype,
        model.device,
        [torch.Generator().manual_seed(seed) for seed in seeds],
    )


def first_step(model: Model, latents: Tensor, states: Tensor, sampler: Sampler) -> Tensor:
    """What the UNet says at the first step, without guidance; the scheduler is left as it was.

    Args:
        model: a Stable Diffusion model.
        latents: from `noise`.
        states: token states, one row a latent.
        sampler: how many steps the run would have.
    """
    scheduler = model.new_scheduler()
    scheduler.set_timesteps(sampler.steps, device=model.device)
    step = scheduler.timesteps[0]
    scaled = scheduler.scale_model_input(latents, step)
    found: Tensor = model.denoiser(scaled, step, encoder_hidden_states=states).sample
    return found
