"""Prompts as the cross-attention sees them: states, token roles, and aligned prompt pairs.

Roles are found by position, never by token id: Stable Diffusion 1 pads with the end token, 2 with
``!``.

Deviations:
    Pads are aligned by absolute index. Where the target prompt is longer, a pad of the source
    that has no counterpart takes the target's first pad, so that none is left speaking of the
    source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from redediting.errors import ModelError, PromptError
from redediting.text.cache import recall
from redediting.threads import all_threads


class Role(Enum):
    """What a token position is in its prompt."""

    BOS = "bos"
    PREFIX = "prefix"
    TRIGGER = "trigger"
    TAIL = "tail"
    EOS = "eos"
    PAD = "pad"


@dataclass(frozen=True)
class TextStates:
    """Encoded prompts.

    Attributes:
        prompts: the texts.
        ids: token ids, int64, shape ``(n, L)``.
        states: token states, in the encoder's dtype, on the CPU, shape ``(n, L, d)``.
        eos: index of the end token after the words, int64, shape ``(n,)``.
    """

    prompts: tuple[str, ...]
    ids: Tensor
    states: Tensor
    eos: Tensor

    @property
    def length(self) -> int:
        """``L``, positions of a prompt."""
        return self.ids.shape[1]


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
    roles: tuple[Role, ...]


def encode(
    pipeline: DiffusionPipeline, prompts: Sequence[str], *, batch_size: int = 16
) -> TextStates:
    """Encodes prompts through the pipeline's own ``encode_prompt``, without gradients.

    A prompt that occurs several times, or is remembered (`redediting.text.cache`), is encoded once.

    Args:
        pipeline: a Stable Diffusion pipeline with one text encoder.
        prompts: at least one text.
        batch_size: prompts encoded at once; has no influence on the states. On a CPU 16 are a
            quarter quicker than 64.

    Raises:
        PromptError: no prompts, or one with more tokens than the encoder takes.
        ModelError: the pipeline has no tokenizer or text encoder.
    """
    if not prompts:
        raise PromptError("expected at least one prompt, got none")
    tokenizer = get_tokenizer(pipeline)
    lengths = prompt_lengths(tokenizer, prompts)
    ids = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    memory = recall(pipeline)
    known: dict[str, Tensor] = {}
    missing = []
    for prompt in dict.fromkeys(prompts):
        row = None if memory is None else memory.get(prompt)
        if row is None:
            missing.append(prompt)
        else:
            known[prompt] = row
    for prompt, row in _encode(pipeline, missing, batch_size):
        known[prompt] = row
        if memory is not None:
            memory.put(prompt, row)
    states = torch.stack([known[prompt] for prompt in prompts])
    return TextStates(tuple(prompts), ids, states, torch.tensor(lengths) - 1)


def _encode(
    pipeline: DiffusionPipeline, prompts: Sequence[str], batch_size: int
) -> Iterator[tuple[str, Tensor]]:
    """States of each prompt, shape ``(L, d)``, on the CPU."""
    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        with torch.no_grad(), all_threads():
            encoded = pipeline.encode_prompt(
                prompt=batch,
                device=pipeline.text_encoder.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        yield from zip(batch, encoded[0].cpu(), strict=True)


def prompt_lengths(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[int]:
    """Tokens of each prompt, BOS and EOS among them.

    Raises:
        PromptError: one has more than the text encoder takes.
    """
    limit = tokenizer.model_max_length
    lengths = [len(ids) for ids in tokenizer(list(prompts), truncation=False).input_ids]
    for prompt, length in zip(prompts, lengths, strict=True):
        if length > limit:
            raise PromptError(
                f"expected at most {limit} tokens, got {length} in "
                f"{_shorten(prompt)!r}; shorten it"
            )
    return lengths


def get_tokenizer(pipeline: DiffusionPipeline) -> PreTrainedTokenizerBase:
    """The pipeline's tokenizer.

    Raises:
        ModelError: the pipeline has none.
    """
    if getattr(pipeline, "tokenizer", None) is None or pipeline.text_encoder is None:
        raise ModelError(
            "expected a pipeline with a tokenizer and a text encoder, got "
            f"{type(pipeline).__name__} without; choose a text-to-image model"
        )
    return pipeline.tokenizer


def phrase_tokens(tokenizer: PreTrainedTokenizerBase, phrase: str) -> list[int]:
    """Token ids of a phrase without special tokens.

    Raises:
        PromptError: there are none.
    """
    ids = tokenizer(phrase, add_special_tokens=False, truncation=False).input_ids
    special = set(tokenizer.all_special_ids)
    words = [token for token in ids if token not in special]
    if not words:
        raise PromptError(
            f"expected a phrase with at least one token, got {phrase!r}, which has none; "
            "use words that the tokenizer knows"
        )
    return words


def find_phrase(tokenizer: PreTrainedTokenizerBase, prompt: str, phrase: str) -> slice:
    """Token positions of the first whole-word occurrence of a phrase, counting BOS.

    Case and the amount of white space do not matter.

    Raises:
        PromptError: the phrase has no tokens, or the prompt does not contain it.
    """
    phrase_tokens(tokenizer, phrase)
    pattern = r"\s+".join(re.escape(word) for word in phrase.split())
    found = re.search(rf"(?<!\w){pattern}(?!\w)", prompt, flags=re.IGNORECASE)
    if found is None:
        raise PromptError(
            f"expected {phrase!r} as whole words in {_shorten(prompt)!r}, got none; "
            "insert the phrase or name one that occurs"
        )
    offsets = tokenizer(prompt, return_offsets_mapping=True, truncation=False).offset_mapping
    inside = [
        i
        for i, (start, end) in enumerate(offsets)
        if start < end and start < found.end() and end > found.start()
    ]
    return slice(inside[0], inside[-1] + 1)


def roles(states: TextStates, row: int, span: slice | None = None) -> tuple[Role, ...]:
    """Role of every position of a prompt.

    Args:
        states: encoded prompts.
        row: which of them.
        span: positions of its trigger; without one all words are ``TAIL``.
    """
    eos = int(states.eos[row])
    start, stop = (1, 1) if span is None else (span.start, span.stop)
    found = []
    for i in range(states.length):
        if i == 0:
            found.append(Role.BOS)
        elif i > eos:
            found.append(Role.PAD)
        elif i == eos:
            found.append(Role.EOS)
        elif i < start:
            found.append(Role.PREFIX)
        else:
            found.append(Role.TRIGGER if i < stop else Role.TAIL)
    return tuple(found)


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
            f"{_shorten(source.prompts[source_row])!r} and "
            f"{_shorten(target.prompts[target_row])!r}; "
            "pair prompts that differ in the phrase only"
        )
    pairs = []
    if not prefix_safe:
        back = target_span.stop - source_span.stop
        early = range(source_span.start, source_span.stop - 1)
        pairs += [(i, max(i + back, target_span.start), Role.PREFIX) for i in early]
    pairs += [(source_span.stop - 1, target_span.stop - 1, Role.TRIGGER)]
    pairs += [(i, j, Role.TAIL) for i, j in zip(source_tail, target_tail, strict=True)]
    pairs += [(source_eos, target_eos, Role.EOS)]
    pads = range(source_eos + 1, source.length) if target_eos + 1 < target.length else ()
    pairs += [(i, max(i, target_eos + 1), Role.PAD) for i in pads]
    sources, targets, found = zip(*pairs, strict=True)
    return Alignment(sources, targets, found)


def _shorten(prompt: str, limit: int = 60) -> str:
    return prompt if len(prompt) <= limit else prompt[: limit - 1] + "…"
