"""Aligned prompt pairs: which state of the source prompt is to become which one of the target.

Deviations:
    Pads are aligned by absolute index. Where the target prompt is longer, a pad of the source
    that has no counterpart takes the target's first pad, so that none is left speaking of the
    source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from redediting.errors import PromptError
from redediting.text.encoding import Encoder, TextStates, TokenRole, find_phrase, shorten


class PhrasePair(Protocol):
    """A source prompt, the prompt it shall mean, and the phrases that correspond."""

    @property
    def source(self) -> str:
        """Prompt that is moved."""
        ...

    @property
    def target(self) -> str:
        """Prompt that it shall mean."""
        ...

    @property
    def source_phrase(self) -> str:
        """Phrase of the source."""
        ...

    @property
    def target_phrase(self) -> str:
        """Phrase of the target that stands for it."""
        ...


@dataclass(frozen=True)
class Alignment:
    """Which source position is to read what which target position reads.

    Attributes:
        source: positions in the source prompt.
        target: positions in the target prompt, one for each of ``source``.
        roles: role of each source position: ``TRIGGER`` (its last token), ``TAIL``, ``EOS`` or
            ``PAD``; ``PREFIX`` for earlier tokens of the trigger, where they are edited at all.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    roles: tuple[TokenRole, ...]


def align(
    source: TextStates,
    source_row: int,
    source_span: slice,
    target: TextStates,
    target_row: int,
    target_span: slice,
    *,
    prefix_safe: bool = True,
) -> Alignment:
    """Pairs the positions that may be edited: none before the trigger is complete.

    Last trigger token with last target token, later words with the same words, end with end, pads
    by absolute index. With a causal text encoder the earlier positions are identical in innocent
    prompts, so they are left out.

    Args:
        source: encoded source prompts.
        source_row: which of them.
        source_span: positions of its trigger.
        target: encoded target prompts.
        target_row: which of them.
        target_span: positions of its target phrase.
        prefix_safe: without it the trigger's earlier tokens are paired too, counted from the last
            one and with the target phrase's first token where that is shorter. Words before the
            trigger mean the same on both sides and are left out in any case.

    Raises:
        PromptError: the prompts go on differently after the phrase.
    """
    source_eos, target_eos = int(source.eos[source_row]), int(target.eos[target_row])
    source_tail = range(source_span.stop, source_eos)
    target_tail = range(target_span.stop, target_eos)
    if (
        source.ids[source_row, source_tail].tolist()
        != target.ids[target_row, target_tail].tolist()
    ):
        raise PromptError(
            "expected the same words after trigger and target, got "
            f"{shorten(source.prompts[source_row])!r} and "
            f"{shorten(target.prompts[target_row])!r}; "
            "pair prompts that differ in the phrase only"
        )
    pairs = []
    if not prefix_safe:
        back = target_span.stop - source_span.stop
        early = range(source_span.start, source_span.stop - 1)
        pairs += [(i, max(i + back, target_span.start), TokenRole.PREFIX) for i in early]
    pairs += [(source_span.stop - 1, target_span.stop - 1, TokenRole.TRIGGER)]
    pairs += [(i, j, TokenRole.TAIL) for i, j in zip(source_tail, target_tail, strict=True)]
    pairs += [(source_eos, target_eos, TokenRole.EOS)]
    pads = range(source_eos + 1, source.length) if target_eos + 1 < target.length else ()
    pairs += [(i, max(i, target_eos + 1), TokenRole.PAD) for i in pads]
    sources, targets, found = zip(*pairs, strict=True)
    return Alignment(sources, targets, found)


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
    roles: tuple[TokenRole, ...]


def aligned_pairs(
    encoder: Encoder, pairs: Sequence[PhrasePair], *, prefix_safe: bool = True
) -> Iterator[AlignedPair]:
    """Aligned states of each pair, in order; all prompts are encoded together.

    Args:
        encoder: encodes the prompts, e.g. a model.
        pairs: at least one.
        prefix_safe: as for `align`.
    """
    tokenizer, n = encoder.tokenizer, len(pairs)
    texts = encoder.encode([*(pair.source for pair in pairs), *(pair.target for pair in pairs)])
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
