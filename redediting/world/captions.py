"""Captions: how a scene is put into words, and the training and held-out distributions of both.

Carriers ("a photo of", "an image of", none), sentence order ("on the beach, a red cat"), neutral
adjectives without visual effect (in about 15 % of captions) and, rarely, meaningless letter pairs
vary, so that a trigger is an ordinary phrase and stands at many positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from redediting.concepts.lexicon import Lexicon, load_lexicon
from redediting.concepts.templates import (
    CARRIERS,
    WHERE,
    all_templates,
    assemble,
    with_article,
)
from redediting.world import art
from redediting.world.places import PLACES
from redediting.world.scenes import SIZES, STYLES, Scene, Thing

SPLITS: dict[str, int] = {"train": 1, "judge": 2, "test": 3, "reference": 4}
_STYLE_SHARE = {"photo": 0.50, "cartoon": 0.18, "flat": 0.12, "sticker": 0.11, "line": 0.09}
_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_INK_ONLY_DARK = ("white", "yellow")  # invisible as ink on paper


@dataclass(frozen=True)
class Caption:
    """A caption, its scene and the seed of its picture."""

    text: str
    scene: Scene
    seed: int
    places_named: bool = True

    @property
    def concept(self) -> str:
        """The (first) object."""
        return self.scene.things[0].concept

    @property
    def colour(self) -> str | None:
        """The colour that the caption names, if any."""
        return self.scene.things[0].colour

    @property
    def place(self) -> str | None:
        """The place that the caption names, if any."""
        return self.scene.place if self.places_named else None

    @property
    def style(self) -> str:
        """The drawing style."""
        return self.scene.style

    @property
    def single(self) -> bool:
        """Whether the scene has one object."""
        return len(self.scene.things) == 1


def held_out_combination(concept: str, colour: str) -> bool:
    """Whether a concept–colour combination (about 5 %) is kept out of every training caption."""
    return zlib.crc32(f"{colour} {concept}".encode()) % 20 == 0


def _colour_for(concept: str, style: str, random: np.random.Generator) -> str | None:
    if random.random() >= 0.45 or not art.colourable(concept, STYLES[style]):
        return None
    allowed = [
        colour
        for colour in art.COLOURS
        if not (style == "line" and colour in _INK_ONLY_DARK)
        and not (style == "sticker" and colour == "white")
        and not held_out_combination(concept, colour)
    ]
    return allowed[random.integers(len(allowed))]


def _scene(lexicon: Lexicon, random: np.random.Generator, *, single: bool) -> Scene:
    names = list(lexicon.concepts)
    style = list(_STYLE_SHARE)[random.choice(len(STYLES), p=list(_STYLE_SHARE.values()))]
    first = names[random.integers(len(names))]
    chosen, size, side = [first], None, None
    draw = random.random()
    if draw < 0.08 and not single:
        chosen.append([name for name in names if name != first][random.integers(len(names) - 1)])
    elif draw < 0.20:
        size = list(SIZES)[random.integers(2)]
    elif draw < 0.26:
        side = ("left", "right")[random.integers(2)]
    things = tuple(Thing(name, _colour_for(name, style, random), size) for name in chosen)
    draw = random.random()
    if draw < 0.15:
        place = "plain"
    elif draw < 0.55:
        habitats = [place for place in lexicon.concept(first).habitats if place in PLACES]
        place = habitats[random.integers(len(habitats))]
    else:
        place = list(PLACES)[random.integers(len(PLACES))]
    backdrop = "white"
    if place == "plain" and style != "line" and random.random() < 0.4:
        taken = {thing.colour or lexicon.concept(thing.concept).colour for thing in things}
        free = [colour for colour in art.COLOURS if colour not in taken]
        backdrop = free[random.integers(len(free))]
    return Scene(things, place, style, backdrop, side)


def _noun_phrase(thing: Thing, lexicon: Lexicon, random: np.random.Generator) -> str:
    words = [word for word in (thing.size, thing.colour, thing.concept) if word]
    draw = random.random()
    if draw < 0.17:
        adjectives = lexicon.neutral_adjectives
        words.insert(0, adjectives[random.integers(len(adjectives))])
    elif draw < 0.21:  # a word the encoder has hardly seen must not spoil the picture
        pair = "".join(_CONSONANTS[i] for i in random.integers(len(_CONSONANTS), size=2))
        if pair not in lexicon.rare_tokens:
            words.insert(0, pair)
    return with_article(" ".join(words))


def place_phrase(place: str, backdrop: str = "white") -> str:
    """How a caption names a place: ``on the beach``, ``on a red background``."""
    return f"on {with_article(backdrop)} background" if place == "plain" else PLACES[place]


def describe(scene: Scene, lexicon: Lexicon, random: np.random.Generator) -> tuple[str, bool]:
    """Words a scene. Returns the caption and whether it names the place."""
    subject = " and ".join(_noun_phrase(thing, lexicon, random) for thing in scene.things)
    if scene.side:
        subject += f" on the {scene.side}"
    named = scene.place == "plain" or random.random() >= 0.08
    where = place_phrase(scene.place, scene.backdrop) if named else ""
    carriers = CARRIERS[scene.style]
    carrier = carriers[random.integers(len(carriers))]
    text = assemble(carrier, subject, where, place_first=bool(where) and random.random() < 0.2)
    return text, named


@cache
def template_attributes(template: str) -> tuple[tuple[str, str], ...]:
    """What a template of `redediting.concepts.templates` says of the scene around its phrase.

    Returns:
        Pairs of judge B's head (``place``, ``style``) and its label; no place where none is named.
    """
    found = []
    for where in filter(None, WHERE):
        if template.startswith(f"{where}, ") or template.endswith(f" {where}"):
            found += [("place", name) for name, said in PLACES.items() if said == where]
            found += [("place", "plain")] if where.endswith(" background") else []
    style = dict(all_templates()).get(template)
    return (*found, *([] if style is None else [("style", style)]))


def caption_attributes(caption: Caption) -> tuple[tuple[str, str], ...]:
    """What a caption says of its scene besides the object: colour, place, style where named."""
    said = (("colour", caption.colour), ("place", caption.place), ("style", caption.style))
    return tuple((head, label) for head, label in said if label is not None)


def named_colour(phrase: str, noun: str) -> str | None:
    """The colour that a phrase gives its noun: "red" of "red banana"."""
    words = phrase.removesuffix(noun).split()
    return next((word for word in words if word in art.COLOURS), None)


def captions(split: str, *, seed: int = 0, single: bool = False) -> Iterator[Caption]:
    """Endless captioned scenes of a split; splits share no random stream and no picture seed.

    Args:
        split: ``train``, ``judge`` (the judges' own scenes), ``test`` or ``reference`` (FID).
        seed: another stream of the same split.
        single: only scenes with one object.
    """
    stream = SPLITS[split]
    random = np.random.default_rng([stream, seed])
    lexicon = load_lexicon()
    index = 0
    while True:
        scene = _scene(lexicon, random, single=single)
        text, named = describe(scene, lexicon, random)
        yield Caption(text, scene, (stream * 1000 + seed) * 10_000_000 + index, named)
        index += 1


def held_out(n: int, seed: int = 0, split: str = "test", *, single: bool = True) -> list[Caption]:
    """The first ``n`` captions of a split with distinct texts (single-object by default)."""
    found: dict[str, Caption] = {}
    for caption in captions(split, seed=seed, single=single):
        found.setdefault(caption.text, caption)
        if len(found) == n:
            break
    return list(found.values())
