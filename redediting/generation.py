"""Images from (prompt, seed) jobs: batched, resumable, split over processes.

Image *i* depends only on the model, its prompt, its seed and the sampler: every image has a CPU
generator of its own, so that batch size, order, interruption and number of processes change float
noise only. Denoising is the diffusers pipeline's own ``__call__``. Where a layout takes token
states every distinct prompt is encoded once, before the first image (0.24 MB a prompt); the other
layouts, which hand over pooled text and masks too, encode the prompts of each batch themselves.

Under ``accelerate launch`` (GPUs) or ``torchrun`` (CPU: ``accelerate launch --cpu`` starts one
process, whatever it is asked for) every process calls `ImageStore.images` with the same jobs: each
draws its share of what is missing, and all return the same list. They must share the folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from redediting.errors import ConfigError, OutputError, PromptError
from redediting.io import check_writable, replace_bytes, writing
from redediting.models.model import Model, as_model
from redediting.models.sampler import Sampler
from redediting.text.encoding import prompt_lengths


@dataclass(frozen=True)
class Job:
    """One image to draw: its prompt and the seed of its noise."""

    prompt: str
    seed: int


def process_state(device: str | torch.device) -> PartialState:
    """This process's place among those launched together; the one way to ask for it.

    accelerate takes a CPU launch for one process unless told that it runs on the CPU, and it
    remembers the first answer: each process would draw everything and think itself the main one.
    `ConfigError` where the launcher started more processes than accelerate knows of.
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
    model: Model,
    prompts: str | Sequence[str],
    *,
    seeds: Iterable[int] = (0,),
    sampler: Sampler | None = None,
    progress: bool = True,
) -> list[Image.Image]:
    """Draws every prompt with every seed: RGB images, prompt by prompt, seeds in their order.

    Args:
        model: draws; a patch applied to it is drawn with.
        prompts: one or several.
        seeds: of each image's noise, in 0…2⁶⁴-1.
        sampler: how; the model's own when not given.
        progress: whether to show a bar.

    Raises:
        PromptError: no prompt, no seed, or a prompt that the text encoder would cut.

    Example:
        >>> import redediting as rd
        >>> images = rd.generate(rd.load("world"), "a photo of a cat", seeds=range(2),
        ...                      progress=False)
        >>> [image.size for image in images]
        [(64, 64), (64, 64)]
    """
    model = as_model(model)
    given: tuple[Any, Any] = ([prompts] if isinstance(prompts, str) else prompts, seeds)
    asked, noises = ([*one] if isinstance(one, Iterable) else [] for one in given)
    if not asked or not noises or not all(isinstance(prompt, str) for prompt in asked):
        raise PromptError(
            f"expected at least one prompt and one seed, got {prompts!r} and {seeds!r}; name "
            "some, e.g. seeds=[0]"
        )
    sampler = sampler or model.sampler
    if not isinstance(sampler, Sampler):
        raise ConfigError(f"expected a sampler, got {sampler!r}; make one: rd.Sampler(steps=20)")
    jobs = [Job(prompt, seed) for prompt in asked for seed in noises]
    drawn = draw(model, jobs, sampler=sampler, progress=progress)
    return [image for _, image in drawn]


def draw(
    model: Model, jobs: Sequence[Job], *, sampler: Sampler, progress: bool = False
) -> Iterator[tuple[Job, Image.Image]]:
    """Draws images in the order of the jobs, a batch at a time; yields each job with its image.

    Repeated jobs are drawn again. `PromptError` for a prompt that the text encoder would cut.
    """
    prompts = list(dict.fromkeys(["", *(job.prompt for job in jobs)]))  # "" is unconditional
    states: dict[str, Tensor] | None = None
    if not model.layout.takes_states:
        prompt_lengths(model.tokenizer, prompts)
    elif jobs:
        encoded = model.encode(prompts, batch_size=sampler.batch_size).states
        states = dict(zip(prompts, encoded, strict=True))
    pipeline = model.pipeline
    computing = pipeline._execution_device.type  # where it computes, offloaded or not
    autocast = torch.autocast(computing, torch.bfloat16, enabled=sampler.autocast == "bf16")
    pipeline.set_progress_bar_config(disable=True)  # its bar counts steps, ours images
    with tqdm(total=len(jobs), unit="image", disable=not progress) as bar:
        for start in range(0, len(jobs), sampler.batch_size):
            batch = jobs[start : start + sampler.batch_size]
            if states is None:
                text = model.layout.inputs([job.prompt for job in batch])
            else:
                rows = torch.stack([states[job.prompt] for job in batch]).to(model.device)
                null = states[""].to(model.device) if sampler.guidance > 1 else None
                text = model.layout.state_inputs(rows, null)
            with autocast:
                images = pipeline(
                    **text,
                    num_inference_steps=sampler.steps,
                    guidance_scale=sampler.guidance,
                    height=sampler.height,
                    width=sampler.width,
                    generator=[torch.Generator().manual_seed(job.seed) for job in batch],
                    output_type="pil",
                ).images
            bar.update(len(batch))
            yield from zip(batch, images, strict=True)


class ImageStore:
    """A folder of images that draws only what it has not got.

    An image's file is written whole or not at all, so that a killed run continues where it
    stopped; a file that cannot be read is drawn again. ``weights`` is the fingerprint of what
    draws; images of other weights have other keys.
    """

    def __init__(self, folder: str | Path, weights: str, sampler: Sampler) -> None:
        self.folder = Path(folder)
        self.weights = weights
        self.sampler = sampler
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)

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
        self, jobs: Sequence[Job], model: Model, *, progress: bool = False
    ) -> list[Image.Image]:
        """The images of the jobs, in their order; those that are missing are drawn, each once.

        `PromptError` for a prompt that the text encoder would cut; `OutputError` where an image
        cannot be written.
        """
        process = process_state(model.device)
        images = {job: self._read(job) for job in jobs}
        missing = [job for job, image in images.items() if image is None]
        process.wait_for_everyone()  # nobody may draw before all have seen the same gaps
        with process.split_between_processes(missing) as share:
            shown = progress and process.is_main_process
            for job, image in draw(model, share, sampler=self.sampler, progress=shown):
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
        data = io.BytesIO()
        image.save(data, format="png")
        replace_bytes(self.path(job), data.getvalue())
