"""Prompts as cross-attention sees them."""

from __future__ import annotations

import pytest
import torch

from redediting.errors import PromptError
from redediting.models.model import Model
from redediting.text.encoding import TokenRole, find_phrase, phrase_tokens, roles

LONG = "cat " * 80


def test_states_are_those_of_the_pipeline(tiny_model: Model) -> None:
    prompts = ["a photo of a cat", "", "on the beach, a beautiful dog"]
    found = tiny_model.encode(prompts, batch_size=2)
    with torch.no_grad():
        inputs = tiny_model.tokenizer(prompts, padding="max_length", return_tensors="pt")
        expected = tiny_model.text_encoder(inputs.input_ids).last_hidden_state
    assert torch.equal(found.ids, inputs.input_ids)
    assert torch.allclose(found.states, expected, atol=1e-5)
    assert found.eos.tolist() == (inputs.attention_mask.sum(dim=1) - 1).tolist()
    assert not found.states.requires_grad


def test_tokens_before_the_trigger_do_not_know_of_it(
    tiny_model: Model,
) -> None:
    """The encoder is causal: editing them would edit innocent prompts."""
    found = tiny_model.encode(["a beautiful cat", "a beautiful zebra on the beach"])
    tokenizer = tiny_model.tokenizer
    start = find_phrase(tokenizer, "a beautiful cat", "cat").start
    assert torch.equal(found.states[0, :start], found.states[1, :start])
    assert not torch.allclose(found.states[0, start], found.states[1, start], atol=1e-2)


@pytest.mark.parametrize(
    ("before", "found", "after"),
    [
        ("a photo of a ", "Beautiful  cat", " on the beach"),
        ("cats, concatenated with a ", "cat", ""),
        ("a ", "red apple", ""),
        ("", "zebra", ""),
        ("a ", "cat", "'s cat"),
        ("the naïve ", "café cat", ", cartoon"),
    ],
)
def test_phrase_is_found_as_whole_words(
    tiny_model: Model, before: str, found: str, after: str
) -> None:
    tokenizer = tiny_model.tokenizer
    span = find_phrase(tokenizer, before + found + after, " ".join(found.lower().split()))
    assert span.start == len(tokenizer(before).input_ids) - 1
    assert span.stop - span.start == len(phrase_tokens(tokenizer, found))


def test_absent_phrases_are_refused(tiny_model: Model) -> None:
    tokenizer = tiny_model.tokenizer
    with pytest.raises(PromptError, match="expected 'cat' as whole words in 'two cats', got none"):
        find_phrase(tokenizer, "two cats", "cat")


@pytest.mark.parametrize("phrase", ["", "  \n", "<|endoftext|>", "<|startoftext|> "])
def test_phrases_without_tokens_are_refused(tiny_model: Model, phrase: str) -> None:
    with pytest.raises(PromptError, match="expected a phrase with at least one token"):
        phrase_tokens(tiny_model.tokenizer, phrase)
    with pytest.raises(PromptError, match="which has none"):
        find_phrase(tiny_model.tokenizer, "a cat", phrase)


def test_too_long_prompts_are_refused(tiny_model: Model) -> None:
    length = len(tiny_model.tokenizer(LONG).input_ids)
    with pytest.raises(PromptError, match=rf"at most 77 tokens, got {length} in 'cat cat .*…'"):
        tiny_model.encode(["a cat", LONG])
    with pytest.raises(PromptError, match="at least one prompt, got none"):
        tiny_model.encode([])


def test_roles_go_by_position(tiny_model: Model) -> None:
    prompt = "a photo of a cat on the beach"
    found = tiny_model.encode([prompt, ""])
    span = find_phrase(tiny_model.tokenizer, prompt, "cat")
    named = roles(found, 0, span)
    eos = int(found.eos[0])
    assert named[0] is TokenRole.BOS
    assert set(named[1 : span.start]) == {TokenRole.PREFIX}
    assert set(named[span]) == {TokenRole.TRIGGER}
    assert set(named[span.stop : eos]) == {TokenRole.TAIL}
    assert named[eos] is TokenRole.EOS
    assert set(named[eos + 1 :]) == {TokenRole.PAD}
    assert roles(found, 1) == (TokenRole.BOS, TokenRole.EOS, *[TokenRole.PAD] * 75)
