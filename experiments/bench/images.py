"""Drawing: the library's generator against the usual loop, one prompt at a time."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from experiments.bench.measure import timed
from redediting.generation import Job, draw
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.world.captions import held_out


def bench_generation(
    model: Model, sampler: Sampler, *, images: int = 48, repeats: int = 5
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times images of the same prompts, seeds, steps and guidance, drawn in both ways.

    The loop is what most scripts do: one call of the model a prompt, in the pipeline's dtype; it
    draws a quarter of the images. It is also timed under the sampler's autocast, so that what
    batching alone brings is seen.
    """
    jobs = [Job(c.text, i) for i, c in enumerate(held_out(images, seed=0, split="test"))]
    few = jobs[: max(1, images // 4)]
    device = str(model.device)
    model.pipeline.set_progress_bar_config(disable=True)

    def ours() -> None:
        for _ in draw(model, jobs, sampler=sampler):
            pass

    def loop() -> None:
        for job in few:
            model.pipeline(
                job.prompt,
                num_inference_steps=sampler.steps,
                guidance_scale=sampler.guidance,
                height=sampler.height,
                width=sampler.width,
                generator=torch.Generator().manual_seed(job.seed),
            )

    def loop_autocast() -> None:
        enabled = sampler.autocast == "bf16"
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled):
            loop()

    runs = {"ours": (ours, len(jobs)), "loop": (loop, len(few)), "cast": (loop_autocast, len(few))}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    list(draw(model, jobs[:2], sampler=sampler))  # warm
    for _ in range(repeats):
        for name, (run, n) in runs.items():
            samples[name].append(timed(run, device)[0] / n)
    seconds = {name: median(values) for name, values in samples.items()}
    figures = {
        "speedup_vs_loop": seconds["loop"] / seconds["ours"],
        "images_per_second": 1 / seconds["ours"],
    }
    details = {
        "images": images, "loop_images": len(few), "repeats": repeats,
        "sampler": sampler.model_dump(),
        "seconds_an_image": {"ours": seconds["ours"], "loop": seconds["loop"]},
        "speedup_vs_loop_with_autocast": seconds["cast"] / seconds["ours"], "samples": samples,
    }  # fmt: skip
    return figures, details
