"""A denoising run's beginning: its noise, and the UNet's first call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from redediting.generation import Sampler, image_size


def noise(pipeline: DiffusionPipeline, seeds: Sequence[int], sampler: Sampler) -> Tensor:
    """Initial latents of each seed, as the pipeline draws them, shape ``(n, channels, h, w)``."""
    height, width = image_size(pipeline, sampler)
    return pipeline.prepare_latents(
        len(seeds),
        pipeline.unet.config.in_channels,
        height,
        width,
        pipeline.unet.dtype,
        pipeline.device,
        [torch.Generator().manual_seed(seed) for seed in seeds],
    )


def first_step(
    pipeline: DiffusionPipeline, latents: Tensor, states: Tensor, sampler: Sampler
) -> Tensor:
    """What the UNet says at the first step, without guidance; the scheduler is left as it was.

    Args:
        pipeline: a Stable Diffusion pipeline.
        latents: from `noise`.
        states: token states, one row a latent.
        sampler: how many steps the run would have.
    """
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(sampler.steps, device=pipeline.device)
    step = scheduler.timesteps[0]
    scaled = scheduler.scale_model_input(latents, step)
    found: Tensor = pipeline.unet(scaled, step, encoder_hidden_states=states).sample
    return found
