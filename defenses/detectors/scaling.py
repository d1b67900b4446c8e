"""SET: how a generation answers when all of its cross-attention is turned down or up.

Attention logits are scaled by {0.2, 0.3, 7, 10, 20} during the first 5 guided steps; the features
are the mean squared differences of the latents to those of the unscaled run, one a scale and step.
A one-class model learnt from clean prompts of the clean model says how far a prompt is from them;
high says "backdoored". Threshold: 95th percentile of clean prompts.

References:
    "SET", arXiv 2604.12446.

Deviations:
    Features are taken as logarithms, because they span decades, and standardised; the one-class
    model is a support vector machine with radial kernel (ν = 0.05).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from torch import Tensor, nn

from defenses.detectors.base import Array, Detector, Direction, Learns, Scorer
from defenses.detectors.inputs import Subject

_FLOOR = 1e-12  # of a mean squared difference, before its logarithm


@contextmanager
def scaled_attention(unet: nn.Module, factor: float) -> Iterator[None]:
    """Multiplies all cross-attention logits within the block, whatever processor is in use."""

    def scale(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return factor * output

    layers = [m for name, m in unet.named_modules() if name.endswith("attn2.to_q")]
    hooks = [layer.register_forward_hook(scale) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class SET(Detector):
    """Features of scaled attention and a one-class model of clean prompts.

    Attributes:
        scales: factors of the attention logits.
        steps: guided steps that are made.
    """

    name: ClassVar[str] = "set"
    direction: ClassVar[Direction] = "high"
    learns: ClassVar[Learns] = "clean"

    scales: tuple[float, ...] = Field(default=(0.2, 0.3, 7.0, 10.0, 20.0), min_length=1)
    steps: int = Field(default=5, ge=1)

    def _features(self, subject: Subject) -> Array:
        size = subject.sampler.batch_size
        rows = range(0, len(subject.jobs), size)
        return np.concatenate([self._batch(subject, slice(i, i + size)) for i in rows])

    def _evaluations(self, subject: Subject) -> float:
        return (len(self.scales) + 1) * self._made(subject) * subject.passes

    def _learn(self, clean: Array, backdoored: Array | None) -> Scorer:
        model = make_pipeline(StandardScaler(), OneClassSVM(nu=0.05, gamma="scale")).fit(clean)

        def scorer(features: Array) -> Array:
            found: Array = -model.decision_function(features)
            return found

        return scorer

    def _made(self, subject: Subject) -> int:
        return min(self.steps, subject.sampler.steps)

    def _batch(self, subject: Subject, rows: slice) -> Array:
        jobs = subject.jobs[rows]
        states = subject.model.encode([job.prompt for job in jobs]).states
        null = subject.model.encode([""]).states.expand(len(jobs), -1, -1)
        seeds = [job.seed for job in jobs]
        plain = self._run(subject, states, null, seeds)
        found = []
        for factor in self.scales:
            with scaled_attention(subject.model.denoiser, factor):
                scaled = self._run(subject, states, null, seeds)
            found.append((scaled - plain).square().flatten(2).mean(dim=2))
        return torch.cat(found).clamp(min=_FLOOR).log().T.double().numpy()

    def _run(self, subject: Subject, states: Tensor, null: Tensor, seeds: list[int]) -> Tensor:
        """Latents after each of the first steps, fp32, shape ``(steps, n, …)``."""
        made: list[Tensor] = []

        def stop(
            pipeline: Any,  # noqa: ANN401 - opaque to the checker
            step: int,
            time: int,
            kept: dict[str, Tensor],
        ) -> dict[str, Tensor]:
            if len(made) < self._made(subject):
                made.append(kept["latents"].float().cpu())
            if len(made) == self._made(subject):
                pipeline._interrupt = True  # the library's own way to stop a run
            return {}

        sampler, device = subject.sampler, subject.model.device
        guided = sampler.guidance > 1
        options: dict[str, Any] = {"negative_prompt_embeds": null.to(device)} if guided else {}
        subject.model.pipeline.set_progress_bar_config(disable=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=sampler.autocast == "bf16"):
            subject.model.pipeline(
                prompt_embeds=states.to(device),
                num_inference_steps=sampler.steps,
                guidance_scale=sampler.guidance,
                height=sampler.height,
                width=sampler.width,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="latent",
                callback_on_step_end=stop,
                **options,
            )
        return torch.stack(made)
