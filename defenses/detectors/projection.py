r"""Projection displacement: leaving out one word brings an object's keys and values back.

``h_ℓ(o|p) = W_ℓ T(p)_o`` for the last token of object o in prompt p and every matrix ℓ that reads
text; ``S_o(p) = mean_ℓ cos(h_ℓ(o|p), h_ℓ(o|"a photo of a o"))``.
``score = max_w [S_o(p \ w) - S_o(p)]`` over the other content words w; high says "backdoored".
No UNet evaluation: it reads the projections alone, which is where closed-form edits are.

References:
    After "GrainPS", IJCAI 2025 (semantics of an object under perturbed prompts); the formula is
    this project's.

Deviations:
    A prompt without a known noun has every content word tried as the object.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from defenses.detectors.words import content_words, without_word
from redediting.concepts.templates import fill
from redediting.text.encoding import TextStates, find_phrase

REFERENCE = "a photo of {}"


def similarity(matrices: list[Tensor], state: Tensor, reference: Tensor) -> float:
    """``mean_ℓ cos(W_ℓ c, W_ℓ r)``.

    Args:
        matrices: ``W_ℓ``, each of shape ``(m_ℓ, d)``.
        state: ``c``, shape ``(d,)``.
        reference: ``r``, likewise.
    """
    both = torch.stack([state, reference], dim=1)
    read = [matrix @ both for matrix in matrices]
    return float(torch.stack([cosine_similarity(x[:, 0], x[:, 1], dim=0) for x in read]).mean())


class ProjectionDisplacement(Detector):
    """The largest return of an object to itself when one word is left out, -2…2."""

    name: ClassVar[str] = "projection"
    direction: ClassVar[Direction] = "high"

    def _features(self, subject: Subject) -> Array:
        cases = [self._cases(subject, prompt) for prompt in subject.prompts]
        wanted = [text for own in cases for noun, texts in own for text in (_plain(noun), *texts)]
        texts = subject.model.encode(list(dict.fromkeys(wanted)) or [""])
        rows = {text: row for row, text in enumerate(texts.prompts)}
        projections = subject.model.projections
        matrices = [p.module.weight.detach().cpu().float() for p in projections]

        def seen(noun: str, text: str) -> float:
            tokenizer = subject.model.tokenizer
            reference = _state(texts, rows[_plain(noun)], tokenizer, noun)
            return similarity(matrices, _state(texts, rows[text], tokenizer, noun), reference)

        scores = []
        for own in cases:
            gains = [
                max(seen(noun, left) for left in others) - seen(noun, whole)
                for noun, (whole, *others) in own
                if others
            ]
            scores.append(max(gains, default=0.0))
        return np.array(scores)

    def _evaluations(self, subject: Subject) -> float:
        return 0.0

    def _cases(self, subject: Subject, prompt: str) -> list[tuple[str, list[str]]]:
        """Objects of a prompt, each with the prompt and the prompt without one other word."""
        noun = subject.noun(prompt)
        places = content_words(prompt)
        words = [word.strip(",.;:!?") for word in prompt.split()]
        objects = [words[i] for i in places] if noun is None else [noun]
        found = []
        for name in objects:
            own = set(name.casefold().split())
            others = [i for i in places if words[i].casefold() not in own]
            found.append((name, [prompt, *(without_word(prompt, i) for i in others)]))
        return found


def _plain(noun: str) -> str:
    return fill(REFERENCE, noun)


def _state(texts: TextStates, row: int, tokenizer: object, noun: str) -> Tensor:
    span = find_phrase(tokenizer, texts.prompts[row], noun)
    return texts.states[row, span.stop - 1].float()
