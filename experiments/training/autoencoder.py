"""The world's autoencoder: AutoencoderTiny, f = 8.

The Tiny form (TAESD: no normalisation, residual convolutions) converges about twice as fast as
AutoencoderKL at this size. The latent is kept near unit variance by a small quadratic penalty and
made smooth by noise added to it while training, the fixed-variance form of a KL term.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from experiments.training.data import as_pixels
from experiments.training.loop import Fit


def build(channels: int, latent_channels: int, *, decoder: int | None = None) -> AutoencoderTiny:
    """An untrained autoencoder with one width throughout (another, ``decoder``, to decode)."""
    return AutoencoderTiny(
        latent_channels=latent_channels,
        encoder_block_out_channels=(channels,) * 4,
        decoder_block_out_channels=(decoder or channels,) * 4,
        num_encoder_blocks=(1, 2, 3, 3),
        num_decoder_blocks=(4, 3, 2, 1),
        scaling_factor=1.0,
    )


def reconstruction_loss(output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Squared error, a tenth of absolute error, and absolute error of the finite differences."""
    error = F.mse_loss(output, image) + 0.1 * F.l1_loss(output, image)
    for axis in (-1, -2):
        error = error + 0.1 * F.l1_loss(output.diff(dim=axis), image.diff(dim=axis))
    return error


def train_autoencoder(
    model: AutoencoderTiny, images: torch.Tensor, fit: Fit, *, noise: float
) -> None:
    """Trains on uint8 images (n, size, size, 3)."""
    model.to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(images), (fit.schedule.batch,), generator=generator)
        x = as_pixels(images[rows])
        with torch.autocast("cpu", torch.bfloat16):
            latent = model.encode(x).latents
            jitter = torch.randn(latent.shape, generator=generator)
            output = model.decode(latent + noise * jitter.to(latent.dtype)).sample
        return reconstruction_loss(output.float(), x) + 1e-3 * latent.float().square().mean()

    fit(model, loss)


@torch.no_grad()
def set_scale(model: AutoencoderTiny, images: torch.Tensor) -> float:
    """Sets ``scaling_factor`` to 1/std of the latents of the first pictures; returns it."""
    spread = torch.cat([model.encode(as_pixels(p)).latents for p in images[:2048].split(64)])
    scale = float(1 / spread.std())
    model.register_to_config(scaling_factor=scale)
    return scale


@torch.no_grad()
def reconstruct(model: AutoencoderTiny, images: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """Decoded encodings of uint8 pictures (n, size, size, 3), and the PSNR of each in dB."""
    decoded = []
    for part in images.split(128):
        latent = model.encode(as_pixels(part).to(model.dtype)).latents
        output = model.decode(latent).sample.float().clamp(-1, 1)
        decoded.append(((output.permute(0, 2, 3, 1) + 1) * 127.5).round().byte())
    result = torch.cat(decoded)
    error = (result.double() - images.double()).square().mean((1, 2, 3))
    return result, (10 * torch.log10(255**2 / error)).tolist()
