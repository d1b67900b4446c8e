"""The pooled text of a prompt, and the edit of the matrix that reads it.

SDXL hands the denoiser one vector a prompt beside the token states: ``add_embedding.linear_1``
reads ``[pooled text, sizes]``. An edit of keys and values misses it. The same closed form applies,
with one column a prompt; it has nothing to say of the other inputs, so their rows and columns of
the multiplier are zero.

Deviations:
    None of the published methods edits this matrix. Here each does, on its own prompt pairs and
    with its own ridge; ``pooled=false`` leaves it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn.functional import pad

from redediting.algebra.multiplier import Multiplier
from redediting.errors import ModelError
from redediting.text.encoding import get_tokenizer, prompt_lengths
from redediting.threads import all_threads


@dataclass(frozen=True)
class PromptSet:
    """The prompts that a method rests on, and its scales for them.

    Attributes:
        pairs: source and target.
        weights: of the pairs; None is one each.
        retain: prompts that stay.
        retain_weights: of these; None is one each.
        ridge: λ.
        retain_strength: η.
    """

    pairs: tuple[tuple[str, str], ...]
    weights: tuple[float, ...] | None = None
    retain: tuple[str, ...] = ()
    retain_weights: tuple[float, ...] | None = None
    ridge: float = 1.0
    retain_strength: float = 1.0


def encode_pooled(
    pipeline: DiffusionPipeline, prompts: Sequence[str], *, batch_size: int = 64
) -> Tensor:
    """Pooled text of prompts, one column each, shape ``(d, n)``, fp64, on the CPU.

    Raises:
        ModelError: the pipeline makes none.
        PromptError: a prompt that is too long.
    """
    prompt_lengths(get_tokenizer(pipeline), prompts)
    distinct = list(dict.fromkeys(prompts))
    found = []
    with torch.no_grad(), all_threads():
        for start in range(0, len(distinct), batch_size):
            encoded = pipeline.encode_prompt(
                prompt=distinct[start : start + batch_size],
                device=pipeline.text_encoder.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
            if len(encoded) < 3 or encoded[2] is None:
                raise ModelError(
                    f"expected a pipeline with pooled text, got {type(pipeline).__name__} "
                    "without; choose an SDXL model"
                )
            found.append(encoded[2].double().cpu())
    row = {prompt: i for i, prompt in enumerate(distinct)}
    return torch.cat(found)[[row[prompt] for prompt in prompts]].T


def widen(multiplier: Multiplier, width: int) -> Multiplier:
    """The multiplier of a matrix whose further inputs, up to ``width``, stay as they are."""
    more = width - multiplier.width
    return Multiplier(pad(multiplier.left, (0, 0, 0, more)), pad(multiplier.right, (0, more)))
