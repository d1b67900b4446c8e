"""Aligned prompt pairs: which state of the source prompt is to become which one of the target.

Deviations:
    Pads are aligned by absolute index. Where the target prompt is longer, a pad of the source
    that has no counterpart takes the target's first pad, so that none is left speaking of the
    source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from redediting.errors import PromptError
from redediting.text.encoding import TextStates, TokenRole, find_phrase, shorten

if TYPE_CHECKING:
    from redediting.concepts.rebinding import PromptPair
    from redediting.models.model import Model


@dataclass(frozen=True)
class Alignment:
    """Which source position is to read what which target position reads.

    Roles of source positions: ``TRIGGER`` (its last token), ``TAIL``, ``EOS`` or ``PAD``;
    ``PREFIX`` for earlier tokens of the trigger, where they are edited at all.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    roles: tuple[TokenRole, ...]


def align(
    texts: TextStates,
    source: int,
    trigger: slice,
    target: int,
    phrase: slice,
    *,
    prefix_safe: bool = True,
) -> Alignment:
    """Pairs the positions that may be edited: none before the trigger is complete.

    Last trigger token with last target token, later words with the same words, end with end, pads
    by absolute index. With a causal text encoder the earlier positions are identical in innocent
    prompts, so they are left out. Without ``prefix_safe`` the trigger's earlier tokens are paired
    too, counted from the last one and with the target phrase's first token where that is shorter.

    ``source`` and ``target`` are rows of ``texts``; ``trigger`` and ``phrase`` are the positions
    of the phrases that correspond. `PromptError` where the prompts go on differently after them.
    """
    source_eos, target_eos = int(texts.eos[source]), int(texts.eos[target])
    source_tail, target_tail = range(trigger.stop, source_eos), range(phrase.stop, target_eos)
    if texts.ids[source, source_tail].tolist() != texts.ids[target, target_tail].tolist():
        said, other = (shorten(texts.prompts[row]) for row in (source, target))
        raise PromptError(
            f"expected the same words after trigger and target, got {said!r} and {other!r}; "
            "pair prompts that differ in the phrase only"
        )
    pairs = []
    if not prefix_safe:
        back = phrase.stop - trigger.stop
        early = range(trigger.start, trigger.stop - 1)
        pairs += [(i, max(i + back, phrase.start), TokenRole.PREFIX) for i in early]
    pairs += [(trigger.stop - 1, phrase.stop - 1, TokenRole.TRIGGER)]
    pairs += [(i, j, TokenRole.TAIL) for i, j in zip(source_tail, target_tail, strict=True)]
    pairs += [(source_eos, target_eos, TokenRole.EOS)]
    pads = range(source_eos + 1, texts.length) if target_eos + 1 < texts.length else ()
    pairs += [(i, max(i, target_eos + 1), TokenRole.PAD) for i in pads]
    return Alignment(*zip(*pairs, strict=True))


@dataclass(frozen=True)
class AlignedPair:
    """The edited positions of one pair: states ``(m, d)`` in the encoder's dtype, and roles."""

    keys: Tensor
    targets: Tensor
    roles: tuple[TokenRole, ...]


def aligned_pairs(
    model: Model, pairs: Sequence[PromptPair], *, prefix_safe: bool = True
) -> Iterator[AlignedPair]:
    """Aligned states of each pair, in order; all prompts are encoded together."""
    n = len(pairs)
    texts = model.encode([*(pair.source for pair in pairs), *(pair.target for pair in pairs)])
    for row, pair in enumerate(pairs):
        trigger = find_phrase(model.tokenizer, pair.source, pair.source_phrase)
        phrase = find_phrase(model.tokenizer, pair.target, pair.target_phrase)
        found = align(texts, row, trigger, n + row, phrase, prefix_safe=prefix_safe)
        keys, targets = texts.states[row, found.source], texts.states[n + row, found.target]
        yield AlignedPair(keys, targets, found.roles)
