"""The captions' language: the shipped one draws what it always drew, the second more."""

import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from redediting.concepts.language import SHIPPED, Language, load_language
from redediting.concepts.templates import (
    all_templates,
    contexts,
    split_of,
    split_size,
    unseen,
)
from redediting.errors import WorldError
from redediting.world import art
from redediting.world.captions import (
    Caption,
    caption_attributes,
    captions,
    held_out,
    held_out_combination,
    template_attributes,
)
from redediting.world.patterns import PATTERNS, mark
from redediting.world.places import PLACES
from redediting.world.scenes import STYLES, Scene, Thing, render

SECOND = load_language(Path("configs/world/language.yaml"))
# taken before the language became data, over the first 500 captions and four renders of each split
FIRST_EDITION = {
    "train": "5a9b5d2e715d66bef5273ad3585d637d95901e8c961438d44d1bec5b7f4f109a",
    "judge": "0b2a2d3c3fd2219e6198e411fc0389e23f056a1011936ab11654ac9b0e226461",
    "test": "a8c345be7d02ef01e605c1ca73c87d2ccd5a47e50d94b4eb2662d87bac4fc0aa",
    "reference": "2ea81c46b0a9587ec3e4f0f9a5776fa17d53bbcc98d1b1a154cb8d98f108fb91",
}
FIRST_TEMPLATES = "9d45bdf5512379fdaf38c9ddeae2e193f11286060a6b845f3d8a323b6c370a87"
first_edition = pytest.mark.skipif(
    len(load_language().patterns) > 0, reason="the bundle has a later edition's language"
)


def _facts(caption: Caption) -> tuple[object, ...]:
    scene = caption.scene
    things = [(thing.concept, thing.colour, thing.size) for thing in scene.things]
    return (caption.text, things, scene.place, scene.style, scene.backdrop, scene.side,
            caption.seed, caption.places_named)  # fmt: skip


@first_edition
@pytest.mark.parametrize("split", FIRST_EDITION)
def test_first_edition_draws_what_it_always_drew(split: str) -> None:
    digest = hashlib.sha256()
    items = list(islice(captions(split), 500))
    for item in items:
        digest.update(repr(_facts(item)).encode())
    for item in items[:4]:
        digest.update(render(item.scene, item.seed).tobytes())
    assert digest.hexdigest() == FIRST_EDITION[split]


@first_edition
def test_first_edition_has_the_templates_it_always_had() -> None:
    digest = hashlib.sha256(repr([(t, s, split_of(t)) for t, s in all_templates()]).encode())
    drawn = [contexts(20, seed=1, split=split) for split in ("edit", "dev", "test")]
    digest.update(repr(drawn).encode())
    digest.update(repr([item.text for item in held_out(60)]).encode())
    assert digest.hexdigest() == FIRST_TEMPLATES


def test_second_edition_says_more() -> None:
    carriers = {carrier for several in SECOND.carriers.values() for carrier in several}
    assert len(carriers) >= 20
    assert "" in carriers
    assert len(SECOND.forms) >= 5
    assert set(SECOND.places) <= set(PLACES)
    assert set(SECOND.patterns) == set(PATTERNS)
    assert sum(form.share for form in SECOND.forms) == pytest.approx(1)
    assert sum(form.share for form in SECOND.bare) == pytest.approx(1)


def test_edit_contexts_never_have_test_only_words() -> None:
    rare = SECOND.test_only
    for split in ("edit", "dev"):
        for template in contexts(split_size(split, SECOND), split=split, language=SECOND):
            assert not template.startswith(tuple(f"{c} " for c in rare.carriers))
            assert not any(f"{where}" in template for where in rare.where)
            assert "look at" not in template
            assert ", seen" not in template
    strange = contexts(100, split="unseen", language=SECOND)
    assert all(unseen(text, SECOND) and split_of(text, SECOND) == "test" for text in strange)
    assert split_size("unseen", SECOND) < split_size("test", SECOND)


def test_captions_say_their_pattern_and_companion() -> None:
    items = list(islice(captions("train", language=SECOND), 3000))
    patterned = [item for item in items if item.pattern]
    accompanied = [item for item in items if item.companion]
    assert 0.1 < len(patterned) / len(items) < 0.3
    assert 0.08 < len(accompanied) / len(items) < 0.25
    for item in patterned:
        assert f"{item.pattern} {item.concept}" in item.text
        assert ("pattern", item.pattern) in caption_attributes(item)
        assert item.concept not in SECOND.unpatterned
    for item in accompanied:
        assert item.companion in item.text.split(SECOND.beside[0])[-1]
        assert item.single
    words = [(i.concept, word) for i in items for word in (i.colour, i.pattern) if word]
    assert not any(held_out_combination(*pair) for pair in words)


def test_judges_see_every_combination() -> None:
    items = islice(captions("judge", language=SECOND), 3000)
    words = [(i.concept, word) for i in items for word in (i.colour, i.pattern) if word]
    assert any(held_out_combination(*pair) for pair in words)


@pytest.mark.parametrize("style", STYLES)
def test_every_pattern_changes_the_object_only(style: str) -> None:
    plain = render(Scene((Thing("car", "blue"),), "plain", style), 3)
    looks = [
        render(Scene((Thing("car", "blue", None, pattern),), "plain", style), 3)
        for pattern in PATTERNS
    ]
    assert len({look.tobytes() for look in looks}) == len(PATTERNS)
    drawing = art.recoloured("car", STYLES[style], "blue")
    marked = mark(drawing, "striped", np.random.default_rng(0), ink=style == "line")
    changed = np.abs(marked.astype(int) - drawing).max(2) > 40
    if style == "line":
        assert changed.mean() > 0.03
    else:
        assert np.array_equal(marked[..., 3], drawing[..., 3])
        assert 0.2 < changed[drawing[..., 3] > 128].mean() < 0.8
    assert not any(np.array_equal(plain, look) for look in looks)


def test_unknown_patterns_are_named() -> None:
    with pytest.raises(WorldError, match="paisley"):
        mark(art.cutout("cat", "3d"), "paisley", np.random.default_rng(0))


def test_a_companion_stands_beside() -> None:
    alone = Scene((Thing("cat"),), "plain")
    both = Scene((Thing("cat"),), "plain", companion="ball")
    assert not np.array_equal(render(alone, 1), render(both, 1))


def test_a_language_refuses_words_it_lacks() -> None:
    raw = SECOND.model_dump()
    raw["test_only"]["where"] = ("on the moon",)
    with pytest.raises(ValidationError, match="on the moon"):
        Language.model_validate(raw)
    with pytest.raises(ValidationError, match="join"):
        Language.model_validate(SECOND.model_dump() | {"beside": (), "test_only": {}})


def test_template_places_are_those_of_the_shipped_language() -> None:
    assert SHIPPED.is_file()
    for phrases in load_language().places.values():
        assert dict(template_attributes(f"{phrases[0]}, a photo of {{}}"))["place"]
