"""What is remembered is what would be encoded, and never that of other weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model
from redediting.text import cache as memory
from redediting.text.cache import recall, remembered

PROMPTS = [f"a photo of a {word}" for word in ("cat", "dog", "zebra", "cat", "lion")]
WISH = Rebinding("beautiful cat", "zebra")


@pytest.fixture
def calls(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Prompts that really went through the encoder, call by call."""
    tiny_model.forget()
    found: list[list[str]] = []
    inner = tiny_model.encode_prompt

    def counted(**options: object) -> object:
        found.append(list(options["prompt"]))
        return inner(**options)

    monkeypatch.setattr(tiny_model, "encode_prompt", counted)
    return found


def test_states_are_those_of_one_prompt_at_a_time(
    tiny_model: Model, calls: list[list[str]]
) -> None:
    alone = torch.cat([tiny_model.encode([prompt]).states for prompt in PROMPTS])
    calls.clear()
    with remembered(tiny_model):
        tiny_model.encode(PROMPTS[:2])
        found = tiny_model.encode(PROMPTS)
        assert recall(tiny_model) is not None
    assert recall(tiny_model) is None
    assert calls == [PROMPTS[:2], [PROMPTS[2], PROMPTS[4]]]
    torch.testing.assert_close(found.states, alone, rtol=0, atol=2e-6)
    assert found.prompts == tuple(PROMPTS)


def test_an_edit_is_the_same_with_and_without(tiny_model: Model, calls: list[list[str]]) -> None:
    method = ATTACKS.make("redediting", contexts=4, retain=8, captions=12)
    first = method.compute(tiny_model, [WISH])
    cold = sum(map(len, calls))
    calls.clear()
    second = method.compute(tiny_model, [WISH])
    assert cold > 20
    assert not calls
    for one, other in zip(first.terms, second.terms, strict=True):
        assert torch.equal(one.left, other.left)
        assert torch.equal(one.right, other.right)


def test_changed_weights_are_encoded_anew(tiny_model: Model, calls: list[list[str]]) -> None:
    with remembered(tiny_model):
        before = tiny_model.encode(PROMPTS).states
    tiny_model.text_encoder.get_input_embeddings().weight.data *= 1.5  # unseen by autograd
    with remembered(tiny_model):
        after = tiny_model.encode(PROMPTS).states
    assert len(calls) == 2
    assert not torch.allclose(before, after)


def test_nothing_is_kept_outside(tiny_model: Model, calls: list[list[str]]) -> None:
    tiny_model.encode(PROMPTS)
    tiny_model.encode(PROMPTS)
    assert len(calls) == 2


def test_room_is_bounded(
    tiny_model: Model,
    calls: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = tiny_model.encode(PROMPTS[:1]).states
    monkeypatch.setattr(memory, "ROOM", 2 * row.nbytes)
    with remembered(tiny_model):
        tiny_model.encode(PROMPTS)
        kept = recall(tiny_model)
        assert kept is not None
        assert list(kept.rows) == [PROMPTS[2], PROMPTS[4]]


def test_each_encoder_has_its_own(
    tiny_model: Model,
    model_factory: Callable[[int], Model],
) -> None:
    other = model_factory(5)
    with remembered(tiny_model):
        tiny_model.encode(PROMPTS)
        assert recall(other) is None
