"""Prompt pairs as aligned token states: which state of the source is to become which one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffusers import DiffusionPipeline
from torch import Tensor

from redediting.concepts.pairs import PromptPair
from redediting.text.encoding import Role, align, encode, find_phrase


@dataclass(frozen=True)
class AlignedPair:
    """The edited positions of one pair.

    Attributes:
        keys: states of the source, shape ``(m, d)``, in the encoder's dtype.
        targets: states that they shall be read as, likewise.
        roles: of the source's positions.
    """

    keys: Tensor
    targets: Tensor
    roles: tuple[Role, ...]


def aligned_pairs(
    pipeline: DiffusionPipeline, pairs: Sequence[PromptPair], *, prefix_safe: bool = True
) -> Iterator[AlignedPair]:
    """Aligned states of each pair, in order; all prompts are encoded together.

    Args:
        pipeline: encodes the prompts.
        pairs: at least one.
        prefix_safe: as for `redediting.text.encoding.align`.
    """
    tokenizer, n = pipeline.tokenizer, len(pairs)
    texts = encode(pipeline, [*(pair.source for pair in pairs), *(pair.target for pair in pairs)])
    for row, pair in enumerate(pairs):
        aligned = align(
            texts,
            row,
            find_phrase(tokenizer, pair.source, pair.source_phrase),
            texts,
            n + row,
            find_phrase(tokenizer, pair.target, pair.target_phrase),
            prefix_safe=prefix_safe,
        )
        yield AlignedPair(
            texts.states[row, list(aligned.source)],
            texts.states[n + row, list(aligned.target)],
            aligned.roles,
        )
