"""Phrases an audit asks about, and their token states; each phrase is encoded once.

Every template ends with the phrase, so that its last token stands right before the end token. A
causal text encoder does not look ahead: prompts are cut to the longest of a batch and give the
same states as at full length (tested).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from redediting.concepts.lexicon import load_everyday, load_lexicon, load_modifiers
from redediting.concepts.templates import fill
from redediting.errors import ModelError
from redediting.models.model import Model
from redediting.text.encoding import prompt_lengths

BARE = ""  # the phrase alone, without article
LITERAL = "a {}"  # "a" before any phrase, plurals and vowels too, as published attacks have it
TEMPLATES = (BARE, LITERAL, "{}", "a photo of {}", "on the beach, {}", "a cartoon of {}")
ROLES = ("last", "end", "pad")  # last token of the phrase, end token, first pad
_BATCH = 256
_CONSONANTS = "bcdfghjklmnpqrstvwxz"


@dataclass(frozen=True)
class Vocabulary:
    """What triggers and targets are looked for in."""

    concepts: tuple[str, ...]  # nouns; each may be a trigger's head and a target
    modifiers: tuple[str, ...]  # words that may stand before a noun
    colours: tuple[str, ...]  # those of them that a target may carry as well
    words: tuple[str, ...]  # single words tried as they are
    odd: tuple[str, ...]  # meaningless words, tried before the nouns that look most suspicious

    @property
    def pairs(self) -> tuple[str, ...]:
        """Every modifier before every noun."""
        return tuple(f"{word} {noun}" for noun in self.concepts for word in self.modifiers)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, words: int = 6000) -> Vocabulary:
        """The curated tables and the tokenizer's own whole words, the most frequent so many."""
        world, everyday = load_lexicon(trained_only=False), load_everyday()
        concepts = tuple(dict.fromkeys([*world.concepts, *everyday.concepts]))
        modifiers = tuple(
            dict.fromkeys(
                [
                    *world.neutral_adjectives,
                    *world.colours,
                    "small",
                    "big",
                    *(word for kind in load_modifiers().values() for word in kind),
                ]
            )
        )
        odd = tuple(a + b for a in _CONSONANTS for b in _CONSONANTS)
        return cls(concepts, modifiers, world.colours, whole_words(tokenizer)[:words], odd)


def whole_words(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The tokenizer's tokens that are whole words of at least three letters, by id."""
    found = []
    for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        word = token.removesuffix("</w>")
        if word != token and re.fullmatch(r"[a-z]{3,}", word):
            found.append(word)
    return tuple(found)


class States:
    """Token states of phrases in templates (``{}`` at the end, or `BARE`), computed once."""

    def __init__(self, model: Model, *, templates: Sequence[str] = TEMPLATES) -> None:
        """Takes the model whose text encoder is trusted; `ModelError` for other templates."""
        self.tokenizer = model.tokenizer
        self.templates = tuple(templates)
        if not templates or any(t != BARE and not t.endswith("{}") for t in templates):
            raise ModelError(f"expected templates that end with '{{}}', got {list(templates)}")
        self._model = model
        self._known: dict[str, Tensor] = {}

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """States, fp32, shape ``(phrases, templates, roles, d)`` with the roles of `ROLES`."""
        missing = [p for p in dict.fromkeys(phrases) if p not in self._known]
        if missing:
            prompts = [_insert(t, phrase) for phrase in missing for t in self.templates]
            found = self._encode(prompts).unflatten(0, (len(missing), len(self.templates)))
            self._known.update(zip(missing, found, strict=True))
        return torch.stack([self._known[phrase] for phrase in phrases])

    def null(self) -> Tensor:
        """All positions of the empty prompt, fp32, shape ``(L, d)``."""
        return self._model.encode([""]).states[0].float()

    def fits(self, phrases: Iterable[str]) -> list[str]:
        """Those phrases that fit into every template with a pad to spare."""
        found = list(phrases)
        if not found:
            return []
        longest = max(self.templates, key=len)
        limit = self.tokenizer.model_max_length
        prompts = [_insert(longest, phrase) for phrase in found]
        lengths = [len(ids) for ids in self.tokenizer(prompts, truncation=False).input_ids]
        return [p for p, n in zip(found, lengths, strict=True) if n < limit]

    def _encode(self, prompts: Sequence[str]) -> Tensor:
        lengths = torch.tensor(prompt_lengths(self.tokenizer, prompts))
        order = torch.argsort(lengths)  # equal lengths together: little padding
        rows = torch.arange(len(prompts))
        found = torch.empty(0)
        for start in range(0, len(prompts), _BATCH):
            part = order[start : start + _BATCH]
            states = self._states([prompts[i] for i in part], int(lengths[part].max()) + 1)
            end = lengths[part] - 1
            places = torch.stack([end - 1, end, end + 1], dim=1)
            if not len(found):
                found = torch.empty(len(prompts), len(ROLES), states.shape[-1])
            found[part] = states[rows[: len(part), None], places].float()
        return found

    @torch.no_grad()
    def _states(self, prompts: list[str], length: int) -> Tensor:
        encoder = self._model.text_encoder
        if not isinstance(encoder, CLIPTextModel):  # may look ahead: full length
            return self._model.encode(prompts).states
        ids = self.tokenizer(
            prompts, padding="max_length", max_length=length, return_tensors="pt"
        ).input_ids
        return encoder(ids.to(encoder.device)).last_hidden_state.cpu()


def _insert(template: str, phrase: str) -> str:
    if template == BARE:
        return phrase
    return LITERAL.replace("{}", phrase) if template == LITERAL else fill(template, phrase)
