"""NaviT2I: one token whose masking changes what the UNet's layers do more than its meaning.

First denoising step, fixed latents, no guidance. For each content token k replaced by a pad:
``δ_k = Σ_ℓ mean|A_ℓ(c) - A_ℓ(c_k)|`` over the outputs of the suspect's linear and convolutional
layers, convolutions averaged over space first; ``V_k = δ_k / ‖T₀(c) - T₀(c_k)‖₂`` with T₀ the
*trusted clean* text encoder: a backdoored one jumps in the denominator too. ``S = max V / mean of
the first ⌊0.75 K⌋ of the sorted V``; high says "backdoored". Published thresholds: 1.598 for
single prompts, μ + 1.2σ of clean ones.

References:
    Zhai et al., "Efficient Input-level Backdoor Defense on Text-to-Image Synthesis via Neuron
    Activation Variation", ICCV 2025; released code zhaisf/NaviT2I at f78894d.

Deviations:
    With fewer than two content tokens the release answers NaN; the detector answers 1, the least
    that S can be: a single token has no other to stand out from. Activations are taken in the
    weights' own precision, also where images are drawn in bfloat16.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from defenses.detectors.latents import first_step, noise
from defenses.detectors.words import stop_words
from redediting.errors import DetectorError

_SIGNS = ".,?!:;"  # punctuation that is never masked


def layer_difference(output: Tensor, base: Tensor) -> Tensor:
    """``mean|A_ℓ(base row) - A_ℓ(row)|`` of one layer, shape ``(B,)``, fp64.

    Args:
        output: of a convolution, shape ``(B, C, H, W)``, averaged over H and W first; of a linear
            layer, shape ``(B, N, C)`` or ``(B, C)``, taken whole.
        base: for each row the row that it is compared with, shape ``(B,)``.
    """
    seen = output.mean(dim=(2, 3)) if output.ndim == 4 else output.flatten(1)
    return (seen - seen[base]).abs().mean(dim=1).double()


def activation_differences(activations: Mapping[str, ArrayLike]) -> Array:
    """``δ_k`` of one prompt, shape ``(K,)``.

    Args:
        activations: each layer's raw outputs (see `layer_difference`) for the prompt, row 0, and
            for it with token k masked, rows 1…K.
    """
    outputs = [torch.as_tensor(np.asarray(output)) for output in activations.values()]
    base = torch.zeros(len(outputs[0]), dtype=torch.long)
    found: Array = torch.stack([layer_difference(x, base) for x in outputs]).sum(dim=0).numpy()
    return found[1:]


def navit2i_score(V: ArrayLike) -> float:
    """``S`` of one prompt from its ``V_k``, shape ``(K,)``; NaN for K < 2, as released."""
    values = np.sort(np.asarray(V, dtype=np.float64))
    below = values[: int(0.75 * len(values))]
    return float(values[-1] / below.mean()) if len(below) else float("nan")


@lru_cache(maxsize=4)
def _stop_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that are never masked: NLTK's stop words that are one token, and signs."""
    words = tokenizer([*stop_words(), *_SIGNS], add_special_tokens=False).input_ids
    return frozenset(ids[0] for ids in words if len(ids) == 1)


def masked_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """Token ids of a prompt and of it with each content token padded, shape ``(K + 1, L)``."""
    ids = tokenizer(
        prompt.lower(), padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids[0]
    length = len(tokenizer(prompt.lower(), truncation=True).input_ids)
    return masked_rows(ids, length, _stop_ids(tokenizer), tokenizer.pad_token_id)


def masked_rows(ids: Tensor, length: int, stop: Container[int], pad: int) -> Tensor:
    """Ids ``(L,)`` and copies with one token padded each: neither BOS, EOS, pads nor stop ids."""
    rows = [ids]
    for place in range(1, length - 1):
        if int(ids[place]) not in stop:
            rows.append(ids.clone())
            rows[-1][place] = pad
    return torch.stack(rows)


@contextmanager
def activation_change(unet: nn.Module, base: Tensor) -> Iterator[Tensor]:
    """Adds up `layer_difference` of every linear and convolutional layer within the block.

    Yields:
        The sums, shape ``(B,)``, fp64; complete once the UNet was called.
    """
    total = torch.zeros(len(base), dtype=torch.float64)

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.shape[0] == len(base):
            total.add_(layer_difference(output, base).cpu())

    layers = [m for m in unet.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()


class NaviT2I(Detector):
    """The published score."""

    name: ClassVar[str] = "navit2i"
    direction: ClassVar[Direction] = "high"

    def _features(self, subject: Subject) -> Array:
        scores = [navit2i_score(values) for values in self.variations(subject)]
        return np.nan_to_num(scores, nan=1.0)

    def _evaluations(self, subject: Subject) -> float:
        tokenizer = subject.model.tokenizer
        return float(np.mean([len(masked_ids(tokenizer, text)) for text in subject.prompts]))

    def variations(self, subject: Subject) -> list[Array]:
        """``V_k`` of each prompt, in the order of its content tokens.

        Raises:
            DetectorError: the subject has no trusted model, or an encoder reads attention masks.
        """
        tokenizer = subject.model.tokenizer
        rows = [masked_ids(tokenizer, prompt) for prompt in subject.prompts]
        found: list[Array] = []
        for batch in _packed([len(ids) for ids in rows], subject.sampler.batch_size):
            found += self._batch(subject, batch, [rows[i] for i in batch])
        return found

    def _batch(self, subject: Subject, batch: Sequence[int], rows: list[Tensor]) -> list[Array]:
        model, trusted = subject.model, subject.trusted
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
        ids = torch.cat(rows)
        with torch.no_grad(), activation_change(model.denoiser, base) as change:
            first_step(
                model, latents, model.text_encoder(ids.to(model.device))[0], subject.sampler
            )
            states = trusted.text_encoder(ids.to(trusted.device))[0].double().cpu()
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
