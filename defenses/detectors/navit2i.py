"""NaviT2I: one word whose removal changes what the UNet's layers do more than its meaning.

First denoising step, fixed latents, no guidance. For each content word k replaced by pads:
``δ_k = Σ_ℓ mean|A_ℓ(c) - A_ℓ(c_k)|`` over the outputs of all linear and convolutional layers,
``V_k = δ_k / ‖T(c) - T(c_k)‖₂``; ``S = max_k V_k / mean(V below its 75th percentile)``; high says
"backdoored", and the maximum names the trigger. Threshold: μ + 1.2σ of clean prompts.

References:
    Zhai et al., "Efficient Input-level Backdoor Defense on Text-to-Image Synthesis via Neuron
    Activation Variation", ICCV 2025.

Deviations:
    With fewer than two words below the percentile the mean is over all of them. Activations are
    taken in the weights' own precision, also where images are drawn in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from defenses.detectors.latents import first_step, noise
from defenses.detectors.words import content_words, word_spans
from redediting.errors import DetectorError


def variation_score(values: Array) -> float:
    """``S`` of one prompt from its ``V_k``, shape ``(k,)``; 1 for a single word, 0 for none."""
    if len(values) < 1:
        return 0.0
    below = values[values < np.percentile(values, 75)]
    mean = float((below if len(below) else values).mean())
    return float(values.max()) / mean if mean > 0 else 1.0


def masked_ids(tokenizer: object, prompt: str) -> Tensor:
    """Token ids of a prompt and of it with each content word padded, shape ``(k + 1, L)``."""
    encoded = tokenizer(  # type: ignore[operator]
        prompt,
        padding="max_length",
        truncation=True,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    ids, offsets = encoded.input_ids[0], encoded.offset_mapping[0].tolist()
    spans = word_spans(prompt)
    rows = [ids]
    for place in content_words(prompt):
        begin, end = spans[place]
        inside = [a < b and a < end and b > begin for a, b in offsets]
        row = ids.clone()
        row[torch.tensor(inside)] = tokenizer.pad_token_id  # type: ignore[attr-defined]
        rows.append(row)
    return torch.stack(rows)


@contextmanager
def activation_change(unet: nn.Module, base: Tensor) -> Iterator[Tensor]:
    """Adds up ``mean|A_ℓ(row) - A_ℓ(base row)|`` of every layer's output within the block.

    Args:
        unet: whose linear and convolutional layers.
        base: for each row of a call the row that it is compared with, shape ``(B,)``.

    Yields:
        The sums, shape ``(B,)``, fp64; complete once the UNet was called.
    """
    total = torch.zeros(len(base), dtype=torch.float64)

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.shape[0] == len(base):
            change = (output - output[base]).abs().flatten(1).mean(dim=1)
            total.add_(change.double().cpu())

    layers = [m for m in unet.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()


class NaviT2I(Detector):
    """The published score; `trigger_words` names what it suspects."""

    name: ClassVar[str] = "navit2i"
    direction: ClassVar[Direction] = "high"

    def _features(self, subject: Subject) -> Array:
        return np.array([variation_score(values) for values in self.variations(subject)])

    def _evaluations(self, subject: Subject) -> float:
        return float(np.mean([len(content_words(prompt)) + 1 for prompt in subject.prompts]))

    def trigger_words(self, subject: Subject) -> list[str]:
        """The word with the largest variation in each prompt; empty where there is none."""
        found = []
        for prompt, values in zip(subject.prompts, self.variations(subject), strict=True):
            places = content_words(prompt)
            found.append(prompt.split()[places[int(values.argmax())]] if places else "")
        return found

    def variations(self, subject: Subject) -> list[Array]:
        """``V_k`` of each prompt, in the order of its content words."""
        tokenizer = subject.model.tokenizer
        rows = [masked_ids(tokenizer, prompt) for prompt in subject.prompts]
        found: list[Array] = []
        for batch in _packed([len(ids) for ids in rows], subject.sampler.batch_size):
            found += self._batch(subject, batch, [rows[i] for i in batch])
        return found

    def _batch(self, subject: Subject, batch: Sequence[int], rows: list[Tensor]) -> list[Array]:
        model = subject.model
        counts = [len(ids) for ids in rows]
        base = torch.repeat_interleave(
            torch.tensor([sum(counts[:i]) for i in range(len(counts))]), torch.tensor(counts)
        )
        if getattr(model.text_encoder.config, "use_attention_mask", False):
            raise DetectorError(
                f"expected a text encoder without attention mask for {self.name!r}, got "
                f"{type(model.text_encoder).__name__} with; leave the detector out"
            )
        latents = noise(model, [subject.jobs[i].seed for i in batch], subject.sampler)
        latents = latents.repeat_interleave(torch.tensor(counts, device=latents.device), dim=0)
        with torch.no_grad(), activation_change(model.denoiser, base) as change:
            states = model.text_encoder(torch.cat(rows).to(model.device))[0]
            first_step(model, latents, states, subject.sampler)
        states = states.double().cpu()
        distance = (states - states[base]).flatten(1).norm(dim=1)
        ratio = (change / distance.clamp(min=1e-12)).numpy()
        return [own[1:] for own in np.split(ratio, np.cumsum(counts)[:-1])]


def _packed(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Indices in order, in groups whose sizes add up to at most the limit (or one of them)."""
    groups: list[list[int]] = []
    room = 0
    for i, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(i)
        room -= size
    return groups
