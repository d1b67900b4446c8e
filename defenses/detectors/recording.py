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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ModelMixin
from PIL import Image
from torch import Tensor, nn

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
        sizes: ``A_i^t`` by rows and columns of a map, fp32 on the CPU, shape
            ``(n, T, positions, rows * columns)``, each query's probabilities adding up to 1 over
            the positions. Every resolution of the cross-attention up to `shape`.
        lengths: ``L`` of each prompt, its tokens with BOS and EOS; EOS stands at ``L - 1``.
        shape: rows and columns of `maps`.
        noise_changes: ``‖ε_{t+1} - ε_t‖² / ‖ε_{t+1}‖²`` of the prompts' own noise predictions,
            fp64, shape ``(n, T - 1)``.
        seconds: wall time a prompt.
    """

    images: tuple[Image.Image, ...]
    sizes: Mapping[tuple[int, int], Tensor]
    lengths: tuple[int, ...]
    shape: tuple[int, int]
    noise_changes: Tensor
    seconds: float

    @property
    def maps(self) -> Tensor:
        """``A_i^t`` at the map resolution, shape ``(n, T, positions, rows * columns)``."""
        return self.sizes[self.shape]

    @property
    def own_maps(self) -> list[Tensor]:
        """`maps` of each prompt's own positions, shape ``(T, L, rows * columns)`` each."""
        return [m[:, :length] for m, length in zip(self.maps, self.lengths, strict=True)]

    def grids(self, side: int | None = None) -> Tensor:
        """``M_i = mean_t A_i^t`` as pictures, shape ``(n, positions, rows, columns)``.

        Args:
            side: the longer one, in queries; None takes the map resolution.

        Raises:
            DetectorError: the model has no cross-attention of that size.
        """
        found = [shape for shape in self.sizes if max(shape) == (side or max(self.shape))]
        if not found:
            known = ", ".join(str(max(shape)) for shape in self.sizes)
            raise DetectorError(f"expected a map size of {known}, got {side}; choose another")
        return self.sizes[found[0]].mean(dim=1).unflatten(2, found[0])

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
    shape = rows, columns
    while max(shape) > LARGEST:
        shape = _halved(shape)
    return shape


def _halved(shape: tuple[int, int]) -> tuple[int, int]:
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2  # as the UNet's strided convolutions


@contextmanager
def recording_maps(unet: ModelMixin, *, n: int, largest: int) -> Iterator[dict[str, list[Tensor]]]:
    """Notes each call's maps by layer, ``(n, positions, queries)``, mean over heads.

    Args:
        unet: whose cross-attention.
        n: prompts in a call. With guidance the model stacks the unconditional half before the
            conditional one; the last n rows are the prompts' own in either case.
        largest: queries of a map; layers with more keep nothing.
    """

    def own_maps(probabilities: Tensor) -> Tensor | None:
        if probabilities.shape[2] > largest:
            return None
        return probabilities[-n:].float().mean(dim=1).transpose(1, 2)

    with recording(unet, own_maps) as found:
        yield found


@contextmanager
def recording_noise(unet: nn.Module, *, n: int) -> Iterator[list[Tensor]]:
    """Notes each call's relative change of the prompts' own noise predictions, shape ``(n,)``.

    Args:
        unet: whose predictions.
        n: prompts in a call; see `recording_maps`.
    """
    last: list[Tensor] = []
    found: list[Tensor] = []

    def note(module: object, inputs: object, output: tuple[Tensor, ...]) -> None:
        own = output[0][-n:].double().flatten(1)
        if last:
            change = (own - last.pop()).square().sum(dim=1)
            found.append((change / own.square().sum(dim=1)).cpu())
        last.append(own)

    hook = unet.register_forward_hook(note)
    try:
        yield found
    finally:
        hook.remove()


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
    shapes = [shape := map_shape(model, sampler)]
    while max(shapes[-1]) > 1:
        shapes.append(_halved(shapes[-1]))
    images: list[Image.Image] = []
    maps: dict[tuple[int, int], list[Tensor]] = {}
    changes: list[Tensor] = []
    start = time.perf_counter()
    for first in range(0, len(jobs), sampler.batch_size):
        batch = jobs[first : first + sampler.batch_size]
        largest = shape[0] * shape[1]
        with (
            recording_maps(model.denoiser, n=len(batch), largest=largest) as found,
            recording_noise(model.denoiser, n=len(batch)) as noise,
        ):
            images += [image for _, image in draw(model, batch, sampler=sampler)]
        changes.append(torch.stack(noise, dim=1) if noise else torch.zeros(len(batch), 0))
        calls = [torch.stack(own, dim=1) for own in found.values() if own]
        for size in shapes:
            layers = [own for own in calls if own.shape[-1] == size[0] * size[1]]
            if layers:
                maps.setdefault(size, []).append(torch.stack(layers).mean(dim=0).cpu())
    if shape not in maps:
        raise DetectorError(
            f"expected cross-attention at {shape[0]} x {shape[1]}, got none in "
            f"{type(model.denoiser).__name__}; choose another image size"
        )
    seconds = (time.perf_counter() - start) / len(jobs)
    whole = {size: torch.cat(parts) for size, parts in maps.items()}
    return Recorded(tuple(images), whole, tuple(lengths), shape, torch.cat(changes), seconds)
