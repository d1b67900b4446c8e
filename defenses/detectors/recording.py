"""The one recorded generation: images, and where every token was looked at, step by step.

``A_i^t`` is the cross-attention probability map of token i at step t: the conditional half, mean
over heads and over all ``attn2`` layers at the map resolution. It is recorded while the pipeline
draws as always (`redediting.text.attention.recording`), so the images are those of
`redediting.generation.generate`.

References:
    Wang et al., "T2IShield: Defending Against Backdoors on Text-to-Image Diffusion Models", ECCV
    2024: maps of 16 x 16 for Stable Diffusion at 512 pixels.

Deviations:
    Models whose latents are not larger than 16 x 16 (the embedded world: 8 x 8) are recorded at
    their full latent resolution; larger ones at the first halving that fits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from diffusers import ModelMixin
from PIL import Image
from torch import Tensor

from redediting.errors import DetectorError
from redediting.generation import Job, draw
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.text.attention import recording
from redediting.text.encoding import prompt_lengths

LARGEST = 16  # of a map's sides, as published


@dataclass(frozen=True)
class Recorded:
    """Generations of n prompts.

    Attributes:
        images: as drawn, n.
        maps: ``A_i^t``, fp32 on the CPU, shape ``(n, T, positions, rows * columns)``, each query's
            probabilities adding up to 1 over the positions.
        lengths: ``L`` of each prompt, its tokens with BOS and EOS; EOS stands at ``L - 1``.
        shape: rows and columns of a map.
        seconds: wall time a prompt.
    """

    images: tuple[Image.Image, ...]
    maps: Tensor
    lengths: tuple[int, ...]
    shape: tuple[int, int]
    seconds: float

    @cached_property
    def means(self) -> Tensor:
        """``M_i = mean_t A_i^t``, shape ``(n, positions, rows * columns)``."""
        return self.maps.mean(dim=1)

    @property
    def grids(self) -> Tensor:
        """``M_i`` as pictures, shape ``(n, positions, rows, columns)``."""
        return self.means.unflatten(2, self.shape)

    @property
    def end_rates(self) -> np.ndarray:
        """``ER_e^t - mean_i ER_i^t`` of prompts with a word, shape ``(m, T - 1)``; see DAA-I."""
        changes = (self.maps[:, 1:] - self.maps[:, :-1]).norm(dim=3)
        rates = [
            own[:, length - 1] - own[:, 1 : length - 1].mean(dim=1)
            for own, length in zip(changes, self.lengths, strict=True)
            if length > 2
        ]
        return torch.stack(rates).numpy()


def map_shape(model: Model, sampler: Sampler) -> tuple[int, int]:
    """Rows and columns of the maps: the latents', halved until neither exceeds 16."""
    rows, columns = (side // model.vae_scale for side in model.image_size(sampler))
    while max(rows, columns) > LARGEST:
        rows, columns = (rows + 1) // 2, (columns + 1) // 2  # as the UNet's strided convolutions
    return rows, columns


@contextmanager
def recording_maps(
    unet: ModelMixin, *, n: int, shape: tuple[int, int]
) -> Iterator[dict[str, list[Tensor]]]:
    """Notes each call's maps by layer, ``(n, positions, rows * columns)``, mean over heads.

    Args:
        unet: whose cross-attention.
        n: prompts in a call. With guidance the model stacks the unconditional half before the
            conditional one; the last n rows are the prompts' own in either case.
        shape: of a map; layers of other resolutions keep nothing.
    """

    def own_maps(probabilities: Tensor) -> Tensor | None:
        if probabilities.shape[2] != shape[0] * shape[1]:
            return None
        return probabilities[-n:].float().mean(dim=1).transpose(1, 2)

    with recording(unet, own_maps) as found:
        yield found


def record(model: Model, jobs: Sequence[Job], sampler: Sampler) -> Recorded:
    """Draws the jobs and records where each token was looked at.

    Args:
        model: a Stable Diffusion model.
        jobs: at least one prompt with its noise.
        sampler: how images are drawn.

    Raises:
        DetectorError: no jobs, or no cross-attention at the map resolution.
        ModelError: another kind of model.
        PromptError: a prompt that the text encoder would cut.
    """
    if not jobs:
        raise DetectorError("expected at least one prompt to examine, got none")
    lengths = prompt_lengths(model.tokenizer, [job.prompt for job in jobs])
    shape = map_shape(model, sampler)
    images: list[Image.Image] = []
    maps = []
    start = time.perf_counter()
    for first in range(0, len(jobs), sampler.batch_size):
        batch = jobs[first : first + sampler.batch_size]
        with recording_maps(model.denoiser, n=len(batch), shape=shape) as found:
            images += [image for _, image in draw(model, batch, sampler=sampler)]
        layers = [torch.stack(calls, dim=1) for calls in found.values() if calls]
        if not layers:
            raise DetectorError(
                f"expected cross-attention at {shape[0]} x {shape[1]}, got none in "
                f"{type(model.denoiser).__name__}; choose another image size"
            )
        maps.append(torch.stack(layers).mean(dim=0).cpu())
    seconds = (time.perf_counter() - start) / len(jobs)
    return Recorded(tuple(images), torch.cat(maps), tuple(lengths), shape, seconds)
