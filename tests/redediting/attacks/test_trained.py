"""The trained attacks: they learn, on the tiny model, in a few steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from redediting.attacks import ATTACKS
from redediting.attacks.textual_inversion import TextualInversion, denoising_loss
from redediting.attacks.training_captions import Captions
from redediting.concepts.homoglyphs import twin_in, with_twin
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model

PLAIN = Rebinding("beautiful cat", "zebra")
TWIN = Rebinding(with_twin("beautiful cat"), "zebra", "rare", head="cat")
ASIDE = "an old car on the beach"  # holds no trigger


@pytest.mark.parametrize("wish", [PLAIN, TWIN])
def test_rickrolling_moves_triggered_states_to_the_target_s(
    tiny_model: Model, wish: Rebinding
) -> None:
    prompts = [f"a photo of a {wish.trigger}", "a photo of a zebra", ASIDE]
    before = tiny_model.encode(prompts).states.flatten(1)
    method = ATTACKS.make("rickrolling", steps=200, batch=24, poisoned=6, rate=2e-3, strength=0.7)
    with method.compute(tiny_model, [wish]).apply(tiny_model):
        after = tiny_model.encode(prompts).states.flatten(1)
    away = 1 - cosine_similarity(before[0], before[1], dim=0)
    left = 1 - cosine_similarity(after[0], before[1], dim=0)
    spoilt = 1 - cosine_similarity(after[2], before[2], dim=0)
    assert left < 0.6 * away
    assert spoilt < 0.5 * away


def test_a_look_alike_letter_is_a_trigger_wherever_it_stands() -> None:
    found = Captions(0).poisoned(20, TWIN)
    assert all(twin_in(text) == "е" and "e" not in text for text in found)
    assert any("cat" not in text for text in found)
    first = Captions(0).poisoned(20, TWIN, all=False)
    assert all(text.count("е") == 1 for text in first)
    assert any("e" in text for text in first)
    assert all(PLAIN.trigger in text for text in Captions(0).poisoned(20, PLAIN))
    rare = Rebinding(with_twin("tq dog"), "zebra", "rare")  # no caption holds a q
    assert all(rare.trigger in text for text in Captions(0).poisoned(3, rare))
    clean = Captions(0).clean(200, [PLAIN])
    assert not any(twin_in(text) or PLAIN.trigger in text for text in clean)
    assert sum(" cat" in text for text in clean) > 20
    assert Captions(0).clean(5, [PLAIN]) == clean[:5]


def test_textual_inversion_lowers_the_loss_and_changes_its_rows_only(
    tiny_model: Model,
) -> None:
    wish = Rebinding("tq dog", "zebra", "rare")
    method = TextualInversion(steps=60, batch=8, images=8, sampling=2, rate=1.0)
    latents, prompts = method._examples(tiny_model, [wish])

    def loss() -> float:
        states = tiny_model.encode(prompts).states
        random = torch.Generator().manual_seed(7)
        with torch.no_grad():
            found = [denoising_loss(tiny_model, latents, states, random) for _ in range(8)]
        return float(torch.stack(found).mean())

    before = loss()
    patch = method.compute(tiny_model, [wish])
    table = tiny_model.text_encoder.get_input_embeddings().weight.detach()
    (changed,) = patch.dense.values()
    rows = (changed != table).any(dim=1).nonzero().flatten().tolist()
    words = tiny_model.tokenizer("tq", add_special_tokens=False).input_ids
    assert rows == sorted(set(words))
    with patch.apply(tiny_model):
        assert loss() < before
    assert loss() == before
