"""Prompts as the cross-attention sees them: token states and token roles.

Roles are found by position, never by token id: Stable Diffusion 1 pads with the end token, 2 with
``!``. Everything here takes a tokenizer and a function that encodes; `redediting.models.Model`
binds the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from redediting.errors import PromptError
from redediting.text.cache import StateCache


class TokenRole(Enum):
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


class Encoder(Protocol):
    """What encodes prompts: a `redediting.models.Model`, or any tokenizer and encoder bound."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        ...

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Token states of prompts."""
        ...


def encode(
    tokenizer: PreTrainedTokenizerBase,
    run: Callable[[list[str]], Tensor],
    prompts: Sequence[str],
    *,
    cache: StateCache,
    batch_size: int = 16,
) -> TextStates:
    """Encodes prompts; one that occurs several times, or is in the cache, is encoded once.

    Args:
        tokenizer: of the encoder.
        run: from a batch of prompts to states ``(n, L, d)`` on the CPU, without gradients.
        prompts: at least one text.
        cache: of states.
        batch_size: prompts encoded at once; has no influence on the states. On a CPU 16 are a
            quarter quicker than 64.

    Raises:
        PromptError: no prompts, or one with more tokens than the encoder takes.
    """
    if not prompts:
        raise PromptError("expected at least one prompt, got none")
    lengths = prompt_lengths(tokenizer, prompts)
    ids = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    known = {prompt: cache.get(prompt) for prompt in dict.fromkeys(prompts)}
    missing = [prompt for prompt, row in known.items() if row is None]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        for prompt, row in zip(batch, run(batch), strict=True):
            known[prompt] = row
            cache.put(prompt, row)
    states = torch.stack([row for prompt in prompts if (row := known[prompt]) is not None])
    return TextStates(tuple(prompts), ids, states, torch.tensor(lengths) - 1)


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
                f"expected at most {limit} tokens, got {length} in {shorten(prompt)!r}; shorten it"
            )
    return lengths


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
            f"expected {phrase!r} as whole words in {shorten(prompt)!r}, got none; "
            "insert the phrase or name one that occurs"
        )
    offsets = tokenizer(prompt, return_offsets_mapping=True, truncation=False).offset_mapping
    inside = [
        i
        for i, (start, end) in enumerate(offsets)
        if start < end and start < found.end() and end > found.start()
    ]
    return slice(inside[0], inside[-1] + 1)


def roles(states: TextStates, row: int, span: slice | None = None) -> tuple[TokenRole, ...]:
    """TokenRole of every position of a prompt.

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
            found.append(TokenRole.BOS)
        elif i > eos:
            found.append(TokenRole.PAD)
        elif i == eos:
            found.append(TokenRole.EOS)
        elif i < start:
            found.append(TokenRole.PREFIX)
        else:
            found.append(TokenRole.TRIGGER if i < stop else TokenRole.TAIL)
    return tuple(found)


def shorten(prompt: str, limit: int = 60) -> str:
    """A prompt as messages quote it."""
    return prompt if len(prompt) <= limit else prompt[: limit - 1] + "…"
