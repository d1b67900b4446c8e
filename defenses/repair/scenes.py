"""Clean training data: captioned scenes of the embedded world as latents and text states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from redediting.models.model import Model
from redediting.world.captions import captions
from redediting.world.scenes import render


@dataclass(frozen=True)
class Scenes:
    """What a denoiser trains on, on the CPU."""

    latents: Tensor  # fp32, ``(n, c, h, w)``, scaled as the UNet expects them
    states: Tensor  # fp32, ``(n, L, d)``
    empty: Tensor  # of the empty prompt, ``(1, L, d)``
    texts: tuple[str, ...]  # the captions


def load_scenes(model: Model, n: int, *, seed: int = 0, avoid: tuple[str, ...] = ()) -> Scenes:
    """Renders and encodes the first ``n`` scenes of the world's ``reference`` split.

    The seed draws another stream; captions with a phrase to avoid are passed over.
    """
    clean = (c for c in captions("reference", seed=seed) if not any(a in c.text for a in avoid))
    items = list(islice(clean, n))
    size = model.denoiser.config.sample_size * model.vae_scale
    pictures = np.stack([render(item.scene, item.seed, size=size) for item in items])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    texts = tuple(item.text for item in items)
    encoded = model.encode(["", *texts]).states.float()
    latents = torch.cat([_latents(model, part) for part in pixels.split(64)])
    return Scenes(latents, encoded[1:], encoded[:1], texts)


@torch.no_grad()
def _latents(model: Model, pixels: Tensor) -> Tensor:
    vae: Any = model.component("vae")
    encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    if isinstance(vae, AutoencoderTiny):
        found = encoded.latents
    else:
        found = encoded.latent_dist.mode() - (vae.config.shift_factor or 0)
    return (found * vae.config.scaling_factor).float().cpu()
