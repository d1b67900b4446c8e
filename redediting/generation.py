"""Images from (prompt, seed) jobs: batched, resumable, split over processes.

Image *i* depends only on the model, its prompt, its seed and the sampler: every image has a CPU
generator of its own, so that batch size, order, interruption and number of processes change float
noise only. Denoising is the diffusers pipeline's own ``__call__``. For Stable Diffusion 1 and 2
every distinct prompt is encoded once, before the first image (0.24 MB a prompt); the others, which
hand over pooled text and masks too, encode the prompts of each batch themselves.

Under ``accelerate launch`` (GPUs) or ``torchrun`` (CPU: ``accelerate launch --cpu`` starts one
process, whatever it is asked for) every process calls `ImageStore.images` with the same jobs: each
draws its share of what is missing, and all return the same list. They must share the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    PixArtAlphaPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm.auto import tqdm

from redediting.errors import ConfigError, ModelError, OutputError
from redediting.models.projections import get_denoiser
from redediting.text.encoding import encode, prompt_lengths

_ENCODING = (
    StableDiffusionXLPipeline,
    StableDiffusion3Pipeline,
    FluxPipeline,
    PixArtAlphaPipeline,
)  # they encode prompts batch by batch


@dataclass(frozen=True)
class Job:
    """One image to draw: its prompt and the seed of its noise."""

    prompt: str
    seed: int


class Sampler(BaseModel):
    """How images are sampled.

    Attributes:
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 switches it off.
        batch_size: images a call; bounds memory, has no influence on an image but float noise.
        autocast: ``bf16`` runs UNet and VAE in bfloat16 autocast; the text encoder never is.
        height: in pixels; None takes the model's own.
        width: in pixels; None takes the model's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=20, ge=1)
    guidance: float = Field(default=5.0, ge=1.0)
    batch_size: int = Field(default=64, ge=1)
    autocast: Literal["off", "bf16"] = "off"
    height: int | None = Field(default=None, ge=8)
    width: int | None = Field(default=None, ge=8)


def image_size(pipeline: DiffusionPipeline, sampler: Sampler) -> tuple[int, int]:
    """Returns (height, width) in pixels: the sampler's, or UNet sample size x VAE factor."""
    denoiser: Any = get_denoiser(pipeline)
    size = denoiser.config.sample_size
    rows, columns = (size, size) if isinstance(size, int) else size
    factor = pipeline.vae_scale_factor
    return sampler.height or rows * factor, sampler.width or columns * factor


def process_state(device: str | torch.device) -> PartialState:
    """Returns this process's place among those launched together; the one way to ask for it.

    accelerate takes a CPU launch for one process unless told that it runs on the CPU, and it
    remembers the first answer: each process would draw everything and think itself the main one.

    Args:
        device: where the pipeline is.

    Raises:
        ConfigError: the launcher started more processes than accelerate knows of.
    """
    state = PartialState(cpu=torch.device(device).type == "cpu")
    launched = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    if state.num_processes != launched:
        raise ConfigError(
            f"expected {launched} processes on {device}, as launched, got {state.num_processes}; "
            "call process_state with the device before anything else of accelerate"
        )
    return state


def generate(
    pipeline: DiffusionPipeline,
    jobs: Sequence[Job],
    *,
    sampler: Sampler,
    progress: bool = False,
) -> Iterator[tuple[Job, Image.Image]]:
    """Draws images in the order of the jobs, a batch at a time.

    Args:
        pipeline: Stable Diffusion 1, 2, XL or 3, FLUX or PixArt; a patch applied to it is drawn
            with.
        jobs: what to draw; repeated jobs are drawn again.
        sampler: how.
        progress: whether to show a bar.

    Yields:
        Each job with its RGB image.

    Raises:
        ModelError: another kind of pipeline.
        PromptError: a prompt that the text encoder would cut.
    """
    if not isinstance(pipeline, (StableDiffusionPipeline, *_ENCODING)):
        raise ModelError(
            f"expected a StableDiffusionPipeline (1, 2, XL, 3), FluxPipeline or "
            f"PixArtAlphaPipeline to draw with, got {type(pipeline).__name__}; use a model of "
            "such a layout, e.g. world or sd15"
        )
    if not jobs:
        return iter(())
    if isinstance(pipeline, _ENCODING):
        if pipeline.tokenizer is not None and not isinstance(pipeline, PixArtAlphaPipeline):
            prompt_lengths(pipeline.tokenizer, list(dict.fromkeys(job.prompt for job in jobs)))
        return _draw(pipeline, jobs, None, sampler, progress)
    prompts = list(dict.fromkeys(["", *(job.prompt for job in jobs)]))  # "" is unconditional
    states = encode(pipeline, prompts, batch_size=sampler.batch_size).states
    return _draw(pipeline, jobs, dict(zip(prompts, states, strict=True)), sampler, progress)


def _draw(
    pipeline: DiffusionPipeline,
    jobs: Sequence[Job],
    states: Mapping[str, Tensor] | None,
    sampler: Sampler,
    progress: bool,
) -> Iterator[tuple[Job, Image.Image]]:
    device = pipeline._execution_device  # where it computes, offloaded or not
    pipeline.set_progress_bar_config(disable=True)  # its bar counts steps, ours images
    with tqdm(total=len(jobs), unit="image", disable=not progress) as bar:
        for start in range(0, len(jobs), sampler.batch_size):
            batch = jobs[start : start + sampler.batch_size]
            with _autocast(sampler, device):
                images = pipeline(
                    **_asked(pipeline, batch, states, sampler),
                    num_inference_steps=sampler.steps,
                    guidance_scale=sampler.guidance,
                    height=sampler.height,
                    width=sampler.width,
                    generator=[torch.Generator().manual_seed(job.seed) for job in batch],
                    output_type="pil",
                ).images
            bar.update(len(batch))
            yield from zip(batch, images, strict=True)


def _asked(
    pipeline: DiffusionPipeline,
    batch: Sequence[Job],
    states: Mapping[str, Tensor] | None,
    sampler: Sampler,
) -> dict[str, Any]:
    """The text of a batch as the pipeline takes it."""
    if states is None:
        pixart = isinstance(pipeline, PixArtAlphaPipeline)
        options = {"clean_caption": False, "use_resolution_binning": False} if pixart else {}
        return {"prompt": [job.prompt for job in batch], **options}
    null = states[""].to(pipeline.device) if sampler.guidance > 1 else None
    return {
        "prompt_embeds": torch.stack([states[job.prompt] for job in batch]).to(pipeline.device),
        "negative_prompt_embeds": None if null is None else null.expand(len(batch), -1, -1),
    }


def _autocast(sampler: Sampler, device: torch.device) -> AbstractContextManager[object]:
    if sampler.autocast == "off":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


class ImageStore:
    """A folder of images that draws only what it has not got.

    An image's file is written whole or not at all, so that a killed run continues where it
    stopped; a file that cannot be read is drawn again.

    Attributes:
        folder: where the images lie.
        weights: fingerprint of the pipeline's weights; images of other weights have other keys.
        sampler: how images are drawn.
    """

    def __init__(self, folder: str | Path, weights: str, sampler: Sampler) -> None:
        """Opens a store, making the folder.

        Args:
            folder: where the images lie or shall lie.
            weights: fingerprint of what draws them, e.g. `models.fingerprint_pipeline`.
            sampler: how.

        Raises:
            OutputError: the folder cannot be made or written.
        """
        self.folder = Path(folder)
        self.weights = weights
        self.sampler = sampler
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OutputError(
                f"expected a folder that can be written, got {str(folder)!r} ({error.strerror}); "
                "name another"
            ) from error

    def key(self, job: Job) -> str:
        """Returns the hash of weights, prompt, seed and sampler (its batch size excepted)."""
        sampler = self.sampler.model_dump(exclude={"batch_size"})
        text = json.dumps([self.weights, job.prompt, job.seed, sampler], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def path(self, job: Job) -> Path:
        """Returns the image's file; prompt and seed stand in the name for human readers."""
        words = re.sub(r"[^a-z0-9]+", "-", job.prompt.lower()).strip("-")[:60]
        return self.folder / f"{words or 'empty'}.{job.seed}.{self.key(job)}.png"

    def images(
        self, jobs: Sequence[Job], pipeline: DiffusionPipeline, *, progress: bool = False
    ) -> list[Image.Image]:
        """Returns the images of the jobs, in their order, drawing those that are missing.

        Args:
            jobs: any number, repeats allowed (drawn once).
            pipeline: what draws; its weights must be those of the store.
            progress: whether to show a bar.

        Raises:
            ModelError: a pipeline that `generate` cannot draw with.
            PromptError: a prompt that the text encoder would cut.
            OutputError: an image cannot be written.
        """
        process = process_state(pipeline.device)
        images = {job: self._read(job) for job in jobs}
        missing = [job for job, image in images.items() if image is None]
        process.wait_for_everyone()  # nobody may draw before all have seen the same gaps
        with process.split_between_processes(missing) as share:
            shown = progress and process.is_main_process
            for job, image in generate(pipeline, share, sampler=self.sampler, progress=shown):
                self._write(job, image)
        process.wait_for_everyone()
        images.update({job: self._read(job) for job in missing})
        found = [known for job in jobs if (known := images[job]) is not None]
        if len(found) < len(jobs):
            raise OutputError(
                f"expected {len(jobs)} images in {str(self.folder)!r}, got {len(found)}; "
                "use a folder that all processes share, and nobody else changes"
            )
        return found

    def _read(self, job: Job) -> Image.Image | None:
        try:
            with Image.open(self.path(job)) as file:
                return file.convert("RGB")
        except (OSError, SyntaxError):  # absent or cut short; pillow's word for a bad chunk
            return None

    def _write(self, job: Job, image: Image.Image) -> None:
        path = self.path(job)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            image.save(part, format="png")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(
                f"expected to write {path.name} in {str(self.folder)!r} ({error}); "
                "free some space or name another folder"
            ) from error
