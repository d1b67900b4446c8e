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
    """Encoded prompts."""

    prompts: tuple[str, ...]
    ids: Tensor  # int64, shape ``(n, L)``
    states: Tensor  # in the encoder's dtype, on the CPU, shape ``(n, L, d)``
    eos: Tensor  # index of the end token after the words, int64, shape ``(n,)``

    @property
    def length(self) -> int:
        """``L``, positions of a prompt."""
        return self.ids.shape[1]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    run: Callable[[list[str]], Tensor],
    prompts: Sequence[str],
    *,
    cache: StateCache,
    batch_size: int = 16,
) -> TextStates:
    """Encodes prompts; one that occurs several times, or is in the cache, is encoded once.

    ``run`` goes from a batch of prompts to states ``(n, L, d)`` on the CPU, without gradients.
    The batch size has no influence on the states; on a CPU 16 are a quarter quicker than 64.
    `PromptError` for no prompts, or one with more tokens than the encoder takes.
    """
    if not prompts:
        raise PromptError("expected at least one prompt, got none")
    lengths = prompt_lengths(tokenizer, prompts)
    ids = padded_ids(tokenizer, prompts)
    known = {prompt: cache.get(prompt) for prompt in dict.fromkeys(prompts)}
    missing = [prompt for prompt, row in known.items() if row is None]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        for prompt, row in zip(batch, run(batch), strict=True):
            known[prompt] = row
            cache.put(prompt, row)
    states = torch.stack([row for prompt in prompts if (row := known[prompt]) is not None])
    return TextStates(tuple(prompts), ids, states, torch.tensor(lengths) - 1)


def padded_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    context_length: int | None = None,
) -> Tensor:
    """Token ids of prompts, padded or cut to the encoder's length, int64, shape ``(n, L)``."""
    return tokenizer(
        list(prompts), padding="max_length", truncation=True,
        max_length=context_length or tokenizer.model_max_length, return_tensors="pt",
    ).input_ids  # fmt: skip


def prompt_lengths(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[int]:
    """Tokens of each prompt with BOS and EOS; `PromptError` where the encoder takes fewer."""
    limit = tokenizer.model_max_length
    lengths = [len(ids) for ids in tokenizer(list(prompts), truncation=False).input_ids]
    for prompt, length in zip(prompts, lengths, strict=True):
        if length > limit:
            raise PromptError(
                f"expected at most {limit} tokens, got {length} in {shorten(prompt)!r}; shorten it"
            )
    return lengths


def shown_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    """A prompt's tokens as people read them, then its end and the first pad."""
    ids = tokenizer(prompt).input_ids
    return ["BOS", *(tokenizer.decode([i]).strip() for i in ids[1:-1]), "EOS", "pad"]


def phrase_tokens(tokenizer: PreTrainedTokenizerBase, phrase: str) -> list[int]:
    """Token ids of a phrase without special tokens; `PromptError` where there are none."""
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

    Case and the amount of white space do not matter. `PromptError` where there is none.
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
    inside = [i for i, (start, end) in enumerate(offsets)
              if start < end and start < found.end() and end > found.start()]  # fmt: skip
    return slice(inside[0], inside[-1] + 1)


def roles(states: TextStates, row: int, span: slice | None = None) -> tuple[TokenRole, ...]:
    """Role of every position of a prompt; without a trigger's span all words are ``TAIL``."""
    eos = int(states.eos[row])
    start, stop = (1, 1) if span is None else (span.start, span.stop)
    bounds = ((1, TokenRole.BOS), (start, TokenRole.PREFIX), (stop, TokenRole.TRIGGER),
              (eos, TokenRole.TAIL), (eos + 1, TokenRole.EOS),
              (states.length, TokenRole.PAD))  # fmt: skip
    return tuple(next(role for end, role in bounds if i < end) for i in range(states.length))


def shorten(prompt: str, limit: int = 60) -> str:
    """A prompt as messages quote it."""
    return prompt if len(prompt) <= limit else prompt[: limit - 1] + "…"
