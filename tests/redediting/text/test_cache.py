"""States that are kept are those that would be encoded, and never those of other encoders."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model
from redediting.text import cache
from redediting.text.cache import StateCache, state_key

PROMPTS = [f"a photo of a {word}" for word in ("cat", "dog", "zebra", "cat", "lion")]
REBINDING = Rebinding("beautiful cat", "zebra")


@pytest.fixture
def calls(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Prompts that really went through the encoder, call by call."""
    tiny_model.forget()
    found: list[list[str]] = []
    inner = tiny_model.pipeline.encode_prompt

    def counted(**options: object) -> object:
        found.append(list(options["prompt"]))
        return inner(**options)

    monkeypatch.setattr(tiny_model.pipeline, "encode_prompt", counted)
    return found


def test_states_are_those_of_one_prompt_at_a_time(
    tiny_model: Model, calls: list[list[str]]
) -> None:
    found = []
    for prompt in PROMPTS:
        tiny_model.forget()
        found.append(tiny_model.encode([prompt]).states)
    alone = torch.cat(found)
    tiny_model.forget()
    calls.clear()
    tiny_model.encode(PROMPTS[:2])
    together = tiny_model.encode(PROMPTS)
    assert calls == [PROMPTS[:2], [PROMPTS[2], PROMPTS[4]]]
    torch.testing.assert_close(together.states, alone, rtol=0, atol=2e-6)
    assert together.prompts == tuple(PROMPTS)


def test_a_prompt_is_encoded_once(tiny_model: Model, calls: list[list[str]]) -> None:
    first = tiny_model.encode(PROMPTS).states
    second = tiny_model.encode(PROMPTS[::-1]).states
    assert calls == [list(dict.fromkeys(PROMPTS))]
    assert torch.equal(first, second.flip(0))
    tiny_model.forget()
    tiny_model.encode(PROMPTS[:1])
    assert calls[1:] == [PROMPTS[:1]]


def test_what_a_caller_does_to_states_is_not_kept(tiny_model: Model) -> None:
    tiny_model.forget()
    first = tiny_model.encode(PROMPTS).states
    before = first.clone()
    first.zero_()
    second = tiny_model.encode(PROMPTS).states
    assert torch.equal(second, before)
    second.zero_()
    assert torch.equal(tiny_model.encode(PROMPTS).states, before)


def test_an_edit_is_the_same_with_and_without(tiny_model: Model, calls: list[list[str]]) -> None:
    method = ATTACKS.make("redediting", contexts=4, retain=8, captions=12)
    first = method.compute(tiny_model, [REBINDING])
    cold = sum(map(len, calls))
    calls.clear()
    second = method.compute(tiny_model, [REBINDING])
    assert cold > 20
    assert not calls
    for one, other in zip(first.terms, second.terms, strict=True):
        assert torch.equal(one.left, other.left)
        assert torch.equal(one.right, other.right)


def add_in_place(encoder: nn.Module) -> None:
    weight = encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight.view(-1)[-1].add_(1.0)  # a single value


def load_state(encoder: nn.Module) -> None:
    encoder.load_state_dict({n: 1.5 * w for n, w in encoder.state_dict().items()})


def write_data(encoder: nn.Module) -> None:
    encoder.get_input_embeddings().weight.data *= 1.5  # unseen by autograd


def replace_parameter(encoder: nn.Module) -> None:
    embedding = encoder.get_input_embeddings()
    embedding.weight = nn.Parameter(1.5 * embedding.weight.detach())


@pytest.mark.parametrize("change", [add_in_place, load_state, write_data, replace_parameter])
def test_changed_weights_are_encoded_anew(
    model_factory: Callable[[int], Model], change: Callable[[nn.Module], None]
) -> None:
    model = model_factory(0)
    before = model.encode(PROMPTS).states
    change(model.text_encoder)
    after = model.encode(PROMPTS).states
    fresh = Model(model.pipeline).encode(PROMPTS).states
    assert torch.equal(after, fresh)
    if change is not add_in_place:  # whose one value belongs to a word that no prompt says
        assert not torch.allclose(before, after)


@pytest.mark.parametrize("change", [add_in_place, load_state, write_data, replace_parameter])
def test_every_change_shows_in_the_key(
    model_factory: Callable[[int], Model], change: Callable[[nn.Module], None]
) -> None:
    encoder = model_factory(0).text_encoder
    before = state_key([encoder])
    assert state_key([encoder]) == before
    change(encoder)
    assert state_key([encoder]) != before


def test_a_second_encoder_counts_too(layout_factory: Callable[[str], Model]) -> None:
    model = layout_factory("sdxl")
    before = model.encode(PROMPTS).states
    add = 0.1 * torch.randn(len(model.tokenizer), 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.component("text_encoder_2").get_input_embeddings().weight.add_(add)
    after = model.encode(PROMPTS).states
    assert torch.equal(before[..., :32], after[..., :32])
    assert not torch.allclose(before[..., 32:], after[..., 32:])


def test_an_applied_patch_of_the_encoder_counts_and_its_revert_too(
    tiny_model: Model, calls: list[list[str]]
) -> None:
    before = tiny_model.encode(PROMPTS).states
    patch = ATTACKS.make("eviledit").compute(tiny_model, [REBINDING])
    calls.clear()
    with patch.apply(tiny_model):  # of the UNet
        assert torch.equal(tiny_model.encode(PROMPTS).states, before)
    assert not calls
    weight = tiny_model.text_encoder.get_input_embeddings().weight
    original = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(2)
        assert not torch.allclose(tiny_model.encode(PROMPTS).states, before)
        weight.copy_(original)
    assert torch.equal(tiny_model.encode(PROMPTS).states, before)
    assert len(calls) == 2


def test_another_tokenizer_is_encoded_with(
    tiny_model: Model, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiny_model.encode(PROMPTS).states
    other = copy.deepcopy(tiny_model.tokenizer)
    monkeypatch.setattr(tiny_model.pipeline, "tokenizer", other)
    assert torch.equal(tiny_model.encode(PROMPTS).states, before)
    assert len(calls) == 2
    assert other.add_tokens(["<new>"]) == 1  # which no prompt says
    assert torch.equal(tiny_model.encode(PROMPTS).states, before)
    assert len(calls) == 3
    other.pad_token = "!"
    assert not torch.equal(tiny_model.encode(PROMPTS).states, before)
    assert len(calls) == 4


def test_a_second_tokenizer_counts_too(
    layout_factory: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = layout_factory("sdxl")
    before = model.encode(PROMPTS).states
    other = copy.deepcopy(model.tokenizer)
    other.pad_token = "!"
    monkeypatch.setattr(model.pipeline, "tokenizer_2", other)
    after = model.encode(PROMPTS).states
    assert torch.equal(before[..., :32], after[..., :32])
    assert not torch.allclose(before[..., 32:], after[..., 32:])


def test_a_cache_under_another_key_is_emptied() -> None:
    kept = StateCache().valid_for(("cpu", 1))
    kept.put("a cat", torch.ones(2, 3))
    assert kept.valid_for(("cpu", 1)).get("a cat") is not None
    assert kept.valid_for(("cuda:0", 1)).get("a cat") is None
    assert kept.valid_for(("cpu", 1)).get("a cat") is None


def test_the_device_is_part_of_the_key(model_factory: Callable[[int], Model]) -> None:
    encoder = model_factory(0).text_encoder
    devices = {place for _, _, place, _ in state_key([encoder])}
    assert devices == {str(parameter.device) for parameter in encoder.parameters()} == {"cpu"}


@pytest.mark.gpu
def test_another_device_empties(model_factory: Callable[[int], Model]) -> None:
    model = model_factory(0)
    model.encode(PROMPTS)
    model.pipeline.to("cuda")
    model.encode(PROMPTS[:1])
    assert list(model._cache.rows) == PROMPTS[:1]


def test_models_made_in_inference_mode_encode_and_are_kept(
    model_factory: Callable[[int], Model],
) -> None:
    with torch.inference_mode():
        model = model_factory(0)
        before = model.encode(PROMPTS).states
        assert len(model._cache.rows) == 4
        model.text_encoder.get_input_embeddings().weight.mul_(2)
        assert not torch.allclose(model.encode(PROMPTS).states, before)
    assert torch.equal(before, model_factory(0).encode(PROMPTS).states)


def test_room_is_bounded_and_the_least_recently_used_go(
    tiny_model: Model,
    calls: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = tiny_model.encode(PROMPTS[:1]).states
    monkeypatch.setattr(cache, "ROOM", 2 * row.nbytes)
    tiny_model.encode(PROMPTS)
    assert list(tiny_model._cache.rows) == [PROMPTS[2], PROMPTS[4]]
    tiny_model.encode([PROMPTS[2]])  # now used later than the other
    tiny_model.encode([PROMPTS[1]])
    assert list(tiny_model._cache.rows) == [PROMPTS[2], PROMPTS[1]]
    calls.clear()
    found = tiny_model.encode(PROMPTS).states  # more than there is room for, all at once
    assert calls == [[PROMPTS[0], PROMPTS[4]]]
    assert torch.equal(found[0], found[3])
    assert torch.equal(found[:1], row)


def test_each_model_has_its_own(
    tiny_model: Model, calls: list[list[str]], model_factory: Callable[[int], Model]
) -> None:
    other = model_factory(5)
    tiny_model.encode(PROMPTS)
    assert not other._cache.rows
    assert not torch.allclose(other.encode(PROMPTS).states, tiny_model.encode(PROMPTS).states)
    assert len(calls) == 1
