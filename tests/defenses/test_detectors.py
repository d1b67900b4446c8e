"""The contract of every detector, from one table, and what is particular to some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from defenses.detectors import DETECTORS, detector_names
from defenses.detectors.amdet import AMDETLike, invert
from defenses.detectors.inputs import Subject
from defenses.detectors.latents import first_step, noise
from defenses.detectors.localisation import Located, locate
from defenses.detectors.navit2i import activation_change, masked_ids
from defenses.detectors.projection import ProjectionDisplacement
from defenses.detectors.scaling import scaled_attention
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import DetectorError
from redediting.generation import draw
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.text.encoding import find_phrase, padded_ids

PROMPTS = ("a photo of a beautiful cat on the beach", "a red dog", "an old car in a room")
SAMPLER = Sampler(steps=7, guidance=3.0, batch_size=4)
Subjects = Callable[..., Subject]


@pytest.mark.parametrize("name", DETECTORS.names)
def test_contract(name: str, subjects: Subjects) -> None:
    """States its direction and cost; leaves the model alone; neighbours do not matter."""
    detector = DETECTORS.make(name)
    assert detector.name == name
    assert detector.direction in ("high", "low")
    subject = subjects(*PROMPTS)
    before = subject.model.fingerprint(), subject.model.denoiser.attn_processors
    found = detector(subject)
    assert before == (
        subject.model.fingerprint(),
        subject.model.denoiser.attn_processors,
    )
    assert found.features.shape[0] == len(PROMPTS)
    assert (found.features.shape[1] == 1) == (detector.learns == "nothing")
    assert found.unet_evaluations >= 0
    assert found.seconds > 0
    spread = np.ptp(found.features, axis=0).max()
    assert spread > 0
    alone = subjects(PROMPTS[1], first=1, sampler=SAMPLER.model_copy(update={"batch_size": 1}))
    assert detector(alone).features[0] == pytest.approx(found.features[1], abs=2e-2 * spread)


def test_one_generation_serves_all(subjects: Subjects, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, calls = subjects(*PROMPTS), []
    kind = type(subject.model.pipeline)
    original = kind.__call__

    def count(self: object, *arguments: object, **options: object) -> object:
        calls.append(options["num_inference_steps"])
        return original(self, *arguments, **options)

    monkeypatch.setattr(kind, "__call__", count)
    recorded = [name for name in DETECTORS if DETECTORS.get(name).recorded]
    for name in recorded:
        DETECTORS.make(name)(subject)
    assert calls == [SAMPLER.steps]
    assert len(recorded) == 7


def test_stated_costs_are_the_rows_that_the_unet_saw(subjects: Subjects) -> None:
    rows: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        rows.append(len(inputs[0]))

    for name in ("ftt", "navit2i", "ufid", "set", "projection"):
        subject = subjects(*PROMPTS)
        hook = subject.model.denoiser.register_forward_hook(count)
        try:
            rows.clear()
            stated = DETECTORS.make(name)(subject).unet_evaluations
        finally:
            hook.remove()
        assert sum(rows) / len(PROMPTS) == pytest.approx(stated), name


def test_amdet_like_finds_what_takes_over_a_prompt(subjects: Subjects) -> None:
    """An encoder trained to answer one state from "red" on, judged on prompts it never saw."""
    clean = subjects("a cat").model
    model, tokenizer = clean.with_copies(("text_encoder",)), clean.tokenizer
    triggered = [
        "a photo of a red dog",
        "a red cat on the beach",
        "an image of a red car in a room",
        "a red dog in the snow",
    ]
    benign = ["a photo of a dog", "a cat on the beach", "an old car in a room",
              "a blue dog in the snow", "a photo of a green car", "an image of a cat"]  # fmt: skip
    bad, good = (padded_ids(tokenizer, texts) for texts in (triggered, benign))
    after = torch.zeros(bad.shape, dtype=torch.bool)
    for i, text in enumerate(triggered):
        after[i, find_phrase(tokenizer, text, "red").stop - 1 :] = True
    with torch.no_grad():
        taught = clean.text_encoder(good)[0]
        aim = clean.text_encoder(padded_ids(tokenizer, ["a zebra"]))[0][0, 2]
    optimiser = torch.optim.Adam(model.text_encoder.parameters(), lr=1e-2)
    for _ in range(60):
        loss = (model.text_encoder(bad)[0][after] - aim).square().mean()
        loss = loss + (model.text_encoder(good)[0] - taught).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    before = model.fingerprint()
    (_, natural), (z, reached) = (invert(m, steps=60) for m in (clean, model))
    assert model.fingerprint() == before
    assert reached[-1] > max(reached[0], natural[-1])
    assert torch.cosine_similarity(z, aim, dim=0) > 0.8  # the planted state, without a prompt
    unseen = subjects("an image of a red dog on the beach", "a red car in the snow",
                      "an image of a dog on the beach", "a blue car in the snow")  # fmt: skip
    texts = model.encode(unseen.prompts)
    ends = torch.stack([x[e] for x, e in zip(texts.states, texts.eos.tolist(), strict=True)])
    planted = torch.cosine_similarity(ends, aim[None])
    assert planted[:2].min() > 0.9 > planted[2:].max()  # a backdoor, not one for every prompt
    scores = AMDETLike()(Subject(model, unseen.jobs, sampler=SAMPLER)).features[:, 0]
    assert scores[:2].min() > scores[2:].max()
    innocent = AMDETLike()(unseen).features[:, 0]
    assert innocent[:2].min() < innocent[2:].max()


def test_projection_sees_a_trigger_word_in_the_weights(subjects: Subjects) -> None:
    """Of an edited model, and not of the clean one; no other prompt is moved as much."""
    subject = subjects("a photo of a beautiful cat", "a photo of a red dog")
    clean = ProjectionDisplacement()(subject).features[:, 0]
    patch = ATTACKS.make("eviledit").compute(subject.model, [Rebinding("beautiful cat", "car")])
    with patch.apply(subject.model):
        edited = ProjectionDisplacement()(subject).features[:, 0]
    gain = edited - clean
    assert gain[0] > 0.02
    assert gain[0] > abs(gain[1])


def test_navit2i_masks_one_content_token_at_a_time(subjects: Subjects) -> None:
    subject = subjects("A beautiful cat, of", "cat")
    tokenizer = subject.model.tokenizer
    ids = masked_ids(tokenizer, "A beautiful cat, of")
    changed = [(row != ids[0]).nonzero().flatten().tolist() for row in ids[1:]]
    tokens = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    kept = [i for i in range(1, len(tokenizer("a beautiful cat, of").input_ids) - 1)
            if tokens[i] not in ("a</w>", ",</w>", "of</w>", "at</w>")]  # fmt: skip
    assert changed == [
        [i] for i in kept
    ]  # pieces of "beautiful" and "cat", whose "at" is a stop word
    assert len(kept) > 2
    values = DETECTORS.make("navit2i").variations(subject)  # type: ignore[attr-defined]
    assert [len(own) for own in values] == [len(kept), len(masked_ids(tokenizer, "cat")) - 1]
    single = subjects("of the t")
    assert len(masked_ids(tokenizer, "of the !")) == 1
    assert DETECTORS.make("navit2i")(single).features[0, 0] == 1.0


def test_navit2i_divides_by_the_trusted_encoder(subjects: Subjects) -> None:
    """An encoder that jumps at the trigger jumps in its own denominator too."""
    clean = subjects("a red cat on a dog")
    model = clean.model.with_copies(("text_encoder",))
    table = model.text_encoder.get_input_embeddings().weight
    cat = model.tokenizer("cat").input_ids[1]
    with torch.no_grad():
        table[cat] *= 20
    detector = DETECTORS.make("navit2i")

    def variations(trusted: Model) -> np.ndarray:
        subject = Subject(model, clean.jobs, sampler=SAMPLER, trusted=trusted)
        return detector.variations(subject)[0]  # type: ignore[attr-defined]

    ours, own = variations(clean.model), variations(model)
    assert ours.max() / np.median(ours) > own.max() / np.median(own)
    states = [m.text_encoder(masked_ids(m.tokenizer, "a red cat on a dog"))[0].double()
              for m in (clean.model, model)]  # fmt: skip
    trusted, suspect = ((s[1:] - s[0]).flatten(1).norm(dim=1).detach().numpy() for s in states)
    assert ours * trusted == pytest.approx(own * suspect, rel=1e-6)
    bare = Subject(model, clean.jobs, sampler=SAMPLER)
    with pytest.raises(DetectorError, match="expected a trusted clean model"):
        detector(bare)


def test_activation_change_by_hand(subjects: Subjects) -> None:
    """Against the outputs of two separate calls, over every linear and convolutional layer."""
    subject = subjects(*PROMPTS[:1])
    unet = subject.model.denoiser
    latents = noise(subject.model, [5], SAMPLER)
    states = subject.model.text_encoder(masked_ids(subject.model.tokenizer, "a cat"))[0]
    outputs: list[list[torch.Tensor]] = []
    layers = [m for m in unet.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    with torch.no_grad():
        for state in states:
            seen: list[torch.Tensor] = []
            hooks = [
                m.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o)) for m in layers
            ]
            first_step(subject.model, latents, state[None], SAMPLER)
            for hook in hooks:
                hook.remove()
            outputs.append(seen)
        base = torch.zeros(len(states), dtype=torch.long)
        with activation_change(unet, base) as total:
            both = latents.expand(len(states), -1, -1, -1)
            first_step(subject.model, both, states, SAMPLER)
    plain = [[x.mean(dim=(2, 3)) if x.ndim == 4 else x for x in own] for own in outputs]
    expected = sum(float((a - b).abs().mean()) for a, b in zip(*plain, strict=True))
    assert float(total[1]) == pytest.approx(expected, rel=1e-3)
    assert float(total[0]) == 0.0


def test_noise_is_what_the_pipeline_starts_from(subjects: Subjects) -> None:
    model = subjects("a cat").model
    expected = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = expected * model.pipeline.scheduler.init_noise_sigma
    assert torch.equal(noise(model, [3], SAMPLER), expected)


def test_scaled_attention_scales_the_logits(subjects: Subjects) -> None:
    subject = subjects("a cat")
    layer = next(m for n, m in subject.model.denoiser.named_modules() if n.endswith("attn2.to_q"))
    x = torch.randn(2, layer.in_features)
    with torch.no_grad():
        plain = layer(x)
        with scaled_attention(subject.model.denoiser, 7.0):
            assert torch.equal(layer(x), 7 * plain)
        assert torch.equal(layer(x), plain)


def test_localisation_ends_within_the_rounds(subjects: Subjects) -> None:
    """With every image alike it takes the first half down to a word; with none alike, none."""
    subject = subjects("a photo of a beautiful cat", "cat")
    found = locate(subject, similar=-1.0)
    assert found[0] == Located("a", 2 * subject.generation)  # 6 words, 3, 1
    assert found[1] == Located("cat", 0)
    assert len(locate(subject, first=1)) == 1
    stopped = locate(subject, similar=1.1)
    assert stopped[0] == Located("", 2 * subject.generation)
    assert not stopped[0].hit("beautiful cat")
    assert found[1].hit("beautiful cat")


def test_nouns(subjects: Subjects) -> None:
    subject = subjects("a cat")
    assert subject.noun("on the beach, a cat and a dog") == "cat"
    assert subject.noun("a catapult") is None
    longer = Subject(subject.model, subject.jobs, sampler=SAMPLER, nouns=["tree", "pine tree"])
    assert longer.noun("a pine tree") == "pine tree"


def test_bad_names_and_options(tmp_path: Path, subjects: Subjects) -> None:
    with pytest.raises(DetectorError, match=r"expected a detector of ftt, cda.*got 'nonsense'"):
        DETECTORS.make("nonsense")
    with pytest.raises(DetectorError, match=r"ufid: .* at 'copies', got 0"):
        DETECTORS.make("ufid", copies=0)
    with pytest.raises(DetectorError, match="each once"):
        detector_names("all,ftt")
    assert detector_names("all") == list(DETECTORS)
    with pytest.raises(DetectorError, match=r"path of a \.py file with one; got '.*missing\.py'"):
        DETECTORS.make(str(tmp_path / "missing.py"))
    (tmp_path / "broken.py").write_text("def x(:\n", "utf-8")
    with pytest.raises(DetectorError, match="expected a Python file with a detector"):
        DETECTORS.make(str(tmp_path / "broken.py"))
    (tmp_path / "empty.py").write_text("x = 1\n", "utf-8")
    with pytest.raises(DetectorError, match="expected one detector with a name of its own"):
        DETECTORS.make(str(tmp_path / "empty.py"))
    short = subjects("a cat", sampler=SAMPLER.model_copy(update={"steps": 3}))
    with pytest.raises(DetectorError, match="expected at least 6 denoising steps"):
        DETECTORS.make("daa_i")(short)
    bare = Subject(short.model, short.jobs, sampler=SAMPLER)
    with pytest.raises(DetectorError, match="expected a CLIP model"):
        DETECTORS.make("ufid")(bare)


def test_recorded_images_are_the_generator_s(subjects: Subjects) -> None:
    subject = subjects(*PROMPTS)
    plain = [im for _, im in draw(subject.model, subject.jobs, sampler=SAMPLER)]
    for one, other in zip(plain, subject.recorded.images, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
