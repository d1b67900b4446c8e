"""AMDET-like: the suspect's text encoder is searched for an embedding that takes over a prompt.

One embedding v, put in an object's place in eight neutral prompts, is optimised on the suspect's
text encoder until the states from v on are alike (``a(v)``, their mean pairwise cosine: in a
backdoored encoder the trigger assimilates what follows it). ``z`` is the direction that these
states then share; ``score = cos(mean state of the prompt, z)``; high says "backdoored".

It looks at the text encoder alone: where the suspect's is the trusted one, as after an edit of the
denoiser, it sees nothing of the suspect, and `detect` says so.

References:
    After Wang et al., "Assimilation Matters: Model-level Backdoor Detection in Vision-Language
    Pretrained Models", arXiv 2512.00343 (AMDET), read in its abstract only: token embeddings are
    inverted by gradients for feature assimilation, and natural features of the clean model are
    filtered out by the loss landscape.

Deviations:
    Scores prompts, not models. The filter is the threshold, which comes from the clean model and
    what the same search finds there. One start, a fixed length of v (the mean of the table).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import normalize

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.concepts.templates import contexts, fill
from redediting.models.model import Model
from redediting.text.encoding import find_phrase, padded_ids, prompt_lengths

_PROMPTS = 8
_SLOT = "cat"  # whose last token's embedding is replaced


def assimilation(states: Tensor, own: Tensor) -> Tensor:
    """``a``: mean pairwise cosine of a prompt's own states, -1…1, shape ``(n,)``.

    Args:
        states: token states, shape ``(n, L, d)``.
        own: which positions count, at least two a prompt, shape ``(n, L)``.
    """
    units = normalize(states, dim=2) * own[..., None]
    count = own.sum(dim=1)
    return (units.sum(dim=1).square().sum(dim=1) - count) / (count * (count - 1))


def invert(model: Model, *, steps: int, seed: int = 0) -> tuple[Tensor, list[float]]:
    """Searches an embedding that makes the states after it alike.

    Args:
        model: whose first text encoder is searched; it is not changed.
        steps: of the optimiser.
        seed: of the start.

    Returns:
        ``z``, a unit vector of shape ``(d,)``, and ``a`` before each step, which rises.
    """
    encoder, tokenizer = model.text_encoder, model.tokenizer
    prompts = [fill(template, _SLOT) for template in contexts(_PROMPTS, seed=0)]
    ids = padded_ids(tokenizer, prompts).to(model.device)
    starts = [find_phrase(tokenizer, prompt, _SLOT).stop - 1 for prompt in prompts]
    places = torch.arange(ids.shape[1])
    lengths = prompt_lengths(tokenizer, prompts)
    own = torch.stack([(places >= a) & (places < b) for a, b in zip(starts, lengths, strict=True)])
    own = own.to(model.device).float()
    table = encoder.get_input_embeddings().weight
    name = next(name for name, value in encoder.named_parameters() if value is table)
    index, whole = ids[0, starts[0]][None], table.detach().float()
    length = float(whole.norm(dim=1).mean())
    random = torch.Generator().manual_seed(seed)
    v = normalize(torch.randn(1, whole.shape[1], generator=random), dim=1) * length
    v = v.to(model.device).requires_grad_(True)
    optimiser = torch.optim.Adam([v], lr=0.1 * length / whole.shape[1] ** 0.5)

    def states() -> Tensor:
        changed = whole.index_copy(0, index, v).to(table.dtype)
        found: Tensor = functional_call(encoder, {name: changed}, (ids,))[0].float()
        return found

    reached = []
    with torch.enable_grad():
        for _ in range(steps):
            similar = assimilation(states(), own).mean()
            reached.append(float(similar.detach()))
            optimiser.zero_grad()
            (-similar).backward(inputs=[v])
            optimiser.step()
            with torch.no_grad():
                v.mul_(length / v.norm())
    with torch.no_grad():
        shared = (normalize(states(), dim=2) * own[..., None]).sum(dim=(0, 1))
    return normalize(shared, dim=0).cpu(), reached


class AMDETLike(Detector):
    """Likeness of a prompt to what an inverted embedding makes of prompts, -1…1.

    Attributes:
        steps: of the search.
    """

    name: ClassVar[str] = "amdet_like"
    direction: ClassVar[Direction] = "high"
    encoder_only: ClassVar[bool] = True

    steps: int = Field(default=60, ge=1)

    def _features(self, subject: Subject) -> Array:
        z, _ = invert(subject.model, steps=self.steps)
        texts = subject.model.encode(subject.prompts)
        scores = []
        for states, end in zip(texts.states.float(), texts.eos.tolist(), strict=True):
            mean = normalize(states[1 : end + 1], dim=1).mean(dim=0)
            scores.append(torch.cosine_similarity(mean, z, dim=0))
        found: Array = torch.stack(scores).double().numpy()
        return found

    def _evaluations(self, subject: Subject) -> float:
        return 0.0
