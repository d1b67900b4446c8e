"""The renderer: scenes decide pictures, splits never meet."""

from itertools import islice

import numpy as np
import pytest

from redediting.concepts.language import load_language
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.templates import WHERE, all_templates
from redediting.errors import WorldError
from redediting.world import art
from redediting.world.captions import (
    caption_attributes,
    captions,
    held_out,
    held_out_combination,
    named_colour,
    template_attributes,
)
from redediting.world.places import PLACES
from redediting.world.scenes import STYLES, Scene, Thing, render

CAT = Scene((Thing("cat"),), "grass")


def test_scene_and_seed_decide_the_picture() -> None:
    assert np.array_equal(render(CAT, 7), render(CAT, 7))
    assert not np.array_equal(render(CAT, 7), render(CAT, 8))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_every_place(style: str) -> None:
    pictures = [render(Scene((Thing("cat"),), place, style), 0) for place in ("plain", *PLACES)]
    for picture in pictures:
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_recolouring_moves_most_of_the_drawing_to_the_colour(colour: str) -> None:
    drawing = art.recoloured("car", "3d", colour)
    body = art.rgb_to_lab(drawing[..., :3])[drawing[..., 3] > 128]
    wanted = art.rgb_to_lab(np.array(art.COLOURS[colour]))
    turn = np.angle(
        np.exp(1j * (np.arctan2(body[:, 2], body[:, 1]) - np.arctan2(*wanted[2:0:-1])))
    )
    assert np.mean(np.abs(turn) < 0.5) > 0.45


def test_lab_round_trip() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 3))
    assert np.abs(art.lab_to_rgb(art.rgb_to_lab(rgb)) - rgb).max() < 1


def test_unknown_drawing_is_named() -> None:
    with pytest.raises(WorldError, match="unicorn"):
        art.cutout("unicorn", "3d")


def test_splits_share_no_picture_seed() -> None:
    seeds = {
        split: {caption.seed for caption in islice(captions(split, seed=s), 200)}
        for split in ("train", "judge", "test", "reference")
        for s in (0, 1)
    }
    assert len(set.union(*seeds.values())) == sum(map(len, seeds.values()))


def test_held_out_combinations_are_never_captioned() -> None:
    pairs = {(c.concept, c.colour) for c in islice(captions("train"), 3000) if c.colour}
    assert pairs
    assert not any(held_out_combination(*pair) for pair in pairs)
    everything = [(c, k) for c in load_lexicon().concepts for k in art.COLOURS]
    share = np.mean([held_out_combination(*pair) for pair in everything])
    assert 0.02 < share < 0.10


def test_captions_say_what_the_scene_shows() -> None:
    for caption in islice(captions("test"), 500):
        for thing in caption.scene.things:
            assert thing.concept in caption.text
            assert thing.colour is None or f"{thing.colour} {thing.concept}" in caption.text
        if caption.place not in (None, "plain"):
            assert load_language().places[caption.place][0] in caption.text


def test_neutral_adjectives_are_common_and_rare_tokens_absent() -> None:
    texts = [caption.text.split() for caption in islice(captions("train"), 4000)]
    lexicon = load_lexicon()
    neutral = np.mean([any(w in lexicon.neutral_adjectives for w in text) for text in texts])
    assert 0.10 < neutral < 0.25
    assert not any(word in lexicon.rare_tokens for text in texts for word in text)


def test_held_out_captions_are_distinct_and_single() -> None:
    items = held_out(300)
    assert len({item.text for item in items}) == 300
    assert all(item.single for item in items)


def test_templates_say_place_and_style() -> None:
    def said(template: str) -> dict[str, str]:
        return dict(template_attributes(template))

    assert said("on the beach, a cartoon of {}") == {"place": "beach", "style": "cartoon"}
    assert said("a sketch of {} at night") == {"place": "night", "style": "line"}
    assert said("{} on a white background") == {"place": "plain", "style": "photo"}
    assert said("a photo of {}") == {"style": "photo"}
    for template, style in all_templates():
        assert said(template)["style"] == style
        assert ("place" in said(template)) == any(w and w in template for w in WHERE)


def test_captions_say_what_their_scene_shows() -> None:
    for caption in held_out(50):
        asked = dict(caption_attributes(caption))
        assert asked["style"] == caption.scene.style
        assert ("colour" in asked) == (caption.colour is not None)
        if "colour" in asked:
            assert asked["colour"] in caption.text.split()
        if caption.places_named:
            assert asked["place"] == caption.scene.place
    assert named_colour("small red apple", "apple") == "red"
    assert named_colour("tangerine", "tangerine") is None
