"""The recorded generation: the same images, the library's own probabilities, nothing left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from defenses.detectors.inputs import Subject
from defenses.detectors.recording import map_shape, record, recording_maps
from redediting.errors import DetectorError
from redediting.generation import Job, draw
from redediting.models.model import Model
from redediting.models.sampler import Sampler

PROMPTS = ("a photo of a beautiful cat on the beach", "a red dog", "an old car in a room")
SAMPLER = Sampler(steps=7, guidance=3.0, batch_size=4)
JOBS = [Job(prompt, i) for i, prompt in enumerate(PROMPTS)]


def test_images_are_those_of_a_plain_run(tiny_model: Model) -> None:
    before = tiny_model.denoiser.attn_processors
    plain = [image for _, image in draw(tiny_model, JOBS, sampler=SAMPLER)]
    found = record(tiny_model, JOBS, SAMPLER)
    assert tiny_model.denoiser.attn_processors == before
    for one, other in zip(plain, found.images, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_processors_come_back_after_an_error(tiny_model: Model) -> None:
    before = tiny_model.denoiser.attn_processors
    with recording_maps(tiny_model.denoiser, n=1, largest=64):
        assert tiny_model.denoiser.attn_processors != before
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        recording_maps(tiny_model.denoiser, n=1, largest=64),
    ):
        raise RuntimeError("in the middle")
    assert tiny_model.denoiser.attn_processors == before


def test_maps_are_the_conditional_half_of_the_library_s_probabilities(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = record(tiny_model, JOBS, SAMPLER)
    assert found.maps.shape == (3, SAMPLER.steps, 77, 64)
    assert found.shape == (8, 8)
    sides = [max(shape) for shape in found.sizes]
    assert sides[0] == 8
    for side in sides:
        assert found.grids(side).shape == (3, 77, side, side)
    assert torch.equal(found.grids(), found.maps.mean(dim=1).unflatten(2, (8, 8)))
    with pytest.raises(DetectorError, match="expected a map size of 8"):
        found.grids(5)
    caught: list[torch.Tensor] = []
    original = Attention.get_attention_scores

    def catch(self: Attention, *arguments: torch.Tensor) -> torch.Tensor:
        scores = original(self, *arguments)
        if scores.shape[1:] == (64, 77):
            halves = scores.unflatten(0, (2 * len(JOBS), -1)).mean(dim=1)
            caught.append(halves[len(JOBS) :].transpose(1, 2))
        return scores

    monkeypatch.setattr(Attention, "get_attention_scores", catch)
    before = tiny_model.denoiser.attn_processors
    tiny_model.denoiser.set_attn_processor(AttnProcessor())
    try:
        list(draw(tiny_model, JOBS, sampler=SAMPLER))
    finally:
        tiny_model.denoiser.set_attn_processor(before)
    layers = len(caught) // SAMPLER.steps
    expected = torch.stack(caught).unflatten(0, (SAMPLER.steps, layers)).mean(dim=1)
    assert layers > 1
    assert torch.allclose(found.maps, expected.transpose(0, 1), atol=1e-5)
    assert torch.allclose(found.maps.sum(dim=2), torch.ones(3, SAMPLER.steps, 64), atol=1e-4)


def test_noise_changes_are_those_of_the_conditional_predictions(tiny_model: Model) -> None:
    seen: list[torch.Tensor] = []
    hook = tiny_model.denoiser.register_forward_hook(lambda m, i, o: seen.append(o[0][-3:]))
    try:
        found = record(tiny_model, JOBS, SAMPLER)
    finally:
        hook.remove()
    steps = torch.stack(seen).double().flatten(2)
    expected = (steps[1:] - steps[:-1]).norm(dim=2) ** 2 / steps[1:].norm(dim=2) ** 2
    assert torch.allclose(found.noise_changes, expected.T)
    assert found.noise_changes.shape == (3, SAMPLER.steps - 1)
    single = record(tiny_model, JOBS, SAMPLER.model_copy(update={"batch_size": 1}))
    assert torch.allclose(found.noise_changes, single.noise_changes, rtol=1e-3)


def test_batches_and_guidance_do_not_matter(tiny_model: Model) -> None:
    whole = record(tiny_model, JOBS, SAMPLER)
    single = record(tiny_model, JOBS, SAMPLER.model_copy(update={"batch_size": 1}))
    assert torch.allclose(whole.maps, single.maps, atol=1e-4)
    unguided = SAMPLER.model_copy(update={"guidance": 1.0})
    first = record(tiny_model, JOBS, unguided).maps[:, 0]
    assert torch.allclose(whole.maps[:, 0], first, atol=1e-5)  # the same latents at step 0
    assert whole.lengths == tuple(
        len(tiny_model.tokenizer(prompt).input_ids) for prompt in PROMPTS
    )


def test_recording_keeps_its_digits_under_autocast(
    tiny_model: Model,
) -> None:
    """bfloat16 has 8 bits: maps of 1/77 would come in steps of 2⁻¹⁴."""
    low = record(tiny_model, JOBS, SAMPLER.model_copy(update={"autocast": "bf16"})).maps[:, 0]
    assert not torch.equal(low, low.bfloat16().float())
    assert torch.allclose(low.sum(dim=1), torch.ones(3, 64), atol=1e-5)


def test_large_latents_are_recorded_at_sixteen(tiny_model: Model) -> None:
    assert map_shape(tiny_model, SAMPLER) == (8, 8)
    factor = tiny_model.vae_scale
    sizes = {64: (16, 16), 96: (12, 12), 24: (12, 12)}
    for side, expected in sizes.items():
        sampler = Sampler(height=side * factor, width=side * factor)
        assert map_shape(tiny_model, sampler) == expected


def test_an_empty_subject_is_refused(tiny_model: Model) -> None:
    with pytest.raises(DetectorError, match="expected at least one prompt"):
        Subject(tiny_model, [], sampler=SAMPLER)
    with pytest.raises(DetectorError, match="expected at least one prompt"):
        record(tiny_model, [], SAMPLER)
