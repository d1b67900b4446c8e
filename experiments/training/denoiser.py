"""The world's UNet: v-prediction on 8 × 8 latents with cross-attention at every resolution.

References:
    Salimans & Ho, Progressive distillation (2022): v-prediction.
    Hang et al., Min-SNR weighting (2023): loss weight min(SNR, γ)/(SNR + 1) for v, γ = 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.training.data import Split, as_pixels
from experiments.training.loop import Fit
from redediting.text.encoding import padded_ids

NOISE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
}
EMPTY_SHARE = 0.1  # captions dropped, so that classifier-free guidance has its branch
MIN_SNR = 5.0


@dataclass(frozen=True)
class Cache:
    """Latents (n, z, 8, 8) and text states (m, 77, d), fp16; ``rows``: (n,) into states."""

    latents: torch.Tensor
    states: torch.Tensor
    rows: torch.Tensor
    empty: torch.Tensor

    def save(self, path: Path) -> None:
        """Writes the cache, all or nothing."""
        partial = path.with_suffix(".partial")
        save_file({key: tensor.contiguous() for key, tensor in vars(self).items()}, partial)
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Cache:
        """Reads what :meth:`save` wrote."""
        return cls(**load_file(path))


@torch.no_grad()
def cache_latents(
    split: Split, autoencoder: AutoencoderTiny, encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> Cache:
    """Encodes pictures and captions once."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys(c.text for c in split.captions))}
    with torch.autocast("cpu", torch.bfloat16):
        parts = split.images.split(128)
        latents = [autoencoder.encode(as_pixels(part)).latents.float() for part in parts]
    scaled = torch.cat([part * autoencoder.config.scaling_factor for part in latents])
    ids = padded_ids(tokenizer, list(distinct))
    states = [encoder(part).last_hidden_state.half() for part in ids.split(256)]
    return Cache(
        scaled.half(),
        torch.cat(states),
        torch.tensor([distinct[c.text] for c in split.captions]),
        encoder(padded_ids(tokenizer, [""])).last_hidden_state.half(),
    )


def build(
    latent_channels: int, text_width: int, *, widths: Sequence[int], layers: int, head: int
) -> UNet2DConditionModel:
    """An untrained UNet whose every level attends to the text."""
    levels = len(widths)
    model = UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        cross_attention_dim=text_width,
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        attention_head_dim=tuple(width // head for width in widths),
        norm_num_groups=16,
    )
    model.set_attn_processor(AttnProcessor())  # fused attention is slow backwards on the CPU
    return model.to(memory_format=torch.channels_last)


def pipeline(
    unet: UNet2DConditionModel,
    autoencoder: AutoencoderTiny,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> StableDiffusionPipeline:
    """The networks as one pipeline, with the scheduler that ships."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            **NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def train_denoiser(model: UNet2DConditionModel, cache: Cache, fit: Fit) -> None:
    """Trains on cached latents; leaves the EMA weights in the model."""
    noise = DDPMScheduler(**NOISE)

    def loss(generator: torch.Generator) -> torch.Tensor:
        n = fit.schedule.batch
        rows = torch.randint(len(cache.latents), (n,), generator=generator)
        clean = cache.latents[rows].float().contiguous(memory_format=torch.channels_last)
        states = cache.states[cache.rows[rows]].float()
        states[torch.rand(n, generator=generator) < EMPTY_SHARE] = cache.empty.float()
        time = torch.randint(noise.config.num_train_timesteps, (n,), generator=generator)
        drawn = torch.randn(clean.shape, generator=generator)
        velocity = noise.get_velocity(clean, drawn, time)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(noise.add_noise(clean, drawn, time), time, states).sample
        signal = noise.alphas_cumprod[time]
        snr = signal / (1 - signal)
        weight = snr.clamp(max=MIN_SNR) / (snr + 1)
        return ((predicted.float() - velocity).square().mean((1, 2, 3)) * weight).mean()

    fit(model, loss)
