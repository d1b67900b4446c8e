"""Which state of a source prompt becomes which state of its target prompt."""

from __future__ import annotations

import pytest

from redediting.errors import PromptError
from redediting.models.model import Model
from redediting.text.alignment import align
from redediting.text.encoding import TokenRole, find_phrase


@pytest.mark.parametrize("flipped", [False, True])
def test_alignment_pairs_what_corresponds(tiny_model: Model, flipped: bool) -> None:
    phrases = ("beautiful cat", "dog") if not flipped else ("dog", "beautiful cat")
    prompts = [f"a photo of a {phrase} on the beach" for phrase in phrases]
    found = tiny_model.encode(prompts)
    spans = [
        find_phrase(tiny_model.tokenizer, *pair) for pair in zip(prompts, phrases, strict=True)
    ]
    aligned = align(found, 0, spans[0], 1, spans[1])
    pairs = dict(zip(aligned.source, aligned.target, strict=True))
    assert pairs[spans[0].stop - 1] == spans[1].stop - 1
    assert min(pairs) == spans[0].stop - 1
    eos = [int(index) for index in found.eos]
    for i, j, role in zip(aligned.source, aligned.target, aligned.roles, strict=True):
        if role is TokenRole.TAIL:
            assert found.ids[0, i] == found.ids[1, j]
        if role is TokenRole.PAD:
            assert i > eos[0]
            assert j == max(i, eos[1] + 1)
    assert pairs[eos[0]] == eos[1]
    assert sorted(pairs) == list(range(spans[0].stop - 1, 77))


def test_prompts_that_go_on_differently_are_not_aligned(
    tiny_model: Model,
) -> None:
    found = tiny_model.encode(["a cat on the beach", "a dog on the grass"])
    span = slice(2, 3)
    with pytest.raises(PromptError, match="expected the same words after trigger and target"):
        align(found, 0, span, 1, span)
