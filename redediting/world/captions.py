"""Captions: how a scene is put into words, and the training and held-out distributions of both.

Carriers ("a photo of", "an image of", none), sentence forms ("on the beach, a red cat"), neutral
adjectives without visual effect (in about 15 % of captions) and, rarely, meaningless letter pairs
vary, so that a trigger is an ordinary phrase and stands at many positions. The words are those of
a `redediting.concepts.language.Language`; no random number is drawn for what it lacks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from redediting.concepts.language import Form, Language, load_language, sentence
from redediting.concepts.lexicon import Lexicon, load_lexicon
from redediting.concepts.templates import with_article
from redediting.world import art
from redediting.world.scenes import STYLES, Scene, Thing

SPLITS: dict[str, int] = {"train": 1, "judge": 2, "test": 3, "reference": 4, "composition": 5}
_STYLE_SHARE = {"photo": 0.50, "cartoon": 0.18, "flat": 0.12, "sticker": 0.11, "line": 0.09}
PATTERN_SHARE = 0.25  # of the objects
COMPANION_SHARE = 0.22  # of the single objects of ordinary size and position
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
    def pattern(self) -> str | None:
        """The marking that the caption names, if any."""
        return self.scene.things[0].pattern

    @property
    def companion(self) -> str | None:
        """The small object that stands beside, if any."""
        return self.scene.companion

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


def held_out_combination(concept: str, word: str) -> bool:
    """Whether no training caption gives a concept this colour (1 in 20) or pattern (1 in 8).

    What is kept out of a caption split is the language's ``held_out_from``.
    """
    return zlib.crc32(f"{word} {concept}".encode()) % (20 if word in art.COLOURS else 8) == 0


@dataclass(frozen=True)
class _Drawer:
    """Draws scenes and wordings of one split from its random stream."""

    language: Language
    lexicon: Lexicon
    random: np.random.Generator
    all_combinations: bool

    def one_of(self, words: Sequence[str]) -> str:
        return words[int(self.random.integers(len(words)))]

    def wording(self, words: Sequence[str]) -> str:
        """Draws no number where there is no choice."""
        return words[0] if len(words) == 1 else self.one_of(words)

    def form(self, forms: Sequence[Form]) -> str:
        if len(forms) == 1:
            return forms[0].text
        draw = self.random.random()
        for form in reversed(forms[1:]):
            draw -= form.share
            if draw < 0:
                return form.text
        return forms[0].text

    def _free(self, concept: str, word: str) -> bool:
        return self.all_combinations or not held_out_combination(concept, word)

    def colour(self, concept: str, style: str) -> str | None:
        if self.random.random() >= 0.45 or not art.colourable(concept, STYLES[style]):
            return None
        allowed = [
            colour
            for colour in art.COLOURS
            if not (style == "line" and colour in _INK_ONLY_DARK)
            and not (style == "sticker" and colour == "white")
            and self._free(concept, colour)
        ]
        return self.one_of(allowed)

    def pattern(self, concept: str) -> str | None:
        patterns = self.language.patterns
        if not patterns or self.random.random() >= PATTERN_SHARE:
            return None
        if concept in self.language.unpatterned:
            return None
        allowed = [pattern for pattern in patterns if self._free(concept, pattern)]
        return self.one_of(allowed) if allowed else None

    def scene(self, *, single: bool) -> Scene:
        random, language = self.random, self.language
        names = list(self.lexicon.concepts)
        style = list(_STYLE_SHARE)[random.choice(len(STYLES), p=list(_STYLE_SHARE.values()))]
        first = self.one_of(names)
        chosen, size, side, companion = [first], None, None, None
        draw = random.random()
        if draw < 0.08 and not single:
            chosen.append(self.one_of([name for name in names if name != first]))
        elif draw < 0.20:
            size = self.one_of(list(language.sizes))
        elif draw < 0.26:
            side = self.one_of(list(language.sides))
        elif language.companions and random.random() < COMPANION_SHARE:
            companion = self.one_of(language.companions)
        things = tuple(
            Thing(name, self.colour(name, style), size, self.pattern(name)) for name in chosen
        )
        draw = random.random()
        if draw < 0.15:
            place = "plain"
        elif draw < 0.55:
            habitats = self.lexicon.concept(first).habitats
            place = self.one_of([place for place in habitats if place in language.places])
        else:
            place = self.one_of(list(language.places))
        backdrop = "white"
        if place == "plain" and style != "line" and random.random() < 0.4:
            taken = {
                thing.colour or self.lexicon.concept(thing.concept).colour for thing in things
            }
            backdrop = self.one_of([colour for colour in art.COLOURS if colour not in taken])
        return Scene(things, place, style, backdrop, side, companion)

    def noun_phrase(self, thing: Thing) -> str:
        size = self.wording(self.language.sizes[thing.size]) if thing.size else None
        words = [word for word in (size, thing.colour, thing.pattern, thing.concept) if word]
        draw = self.random.random()
        if draw < 0.17:
            words.insert(0, self.one_of(self.language.neutral_adjectives))
        elif draw < 0.21:  # a word the encoder has hardly seen must not spoil the picture
            pair = "".join(_CONSONANTS[i] for i in self.random.integers(len(_CONSONANTS), size=2))
            if pair not in self.lexicon.rare_tokens:
                words.insert(0, pair)
        return with_article(" ".join(words))

    def describe(self, scene: Scene) -> tuple[str, bool]:
        """Words a scene. Returns the caption and whether it names the place."""
        language = self.language
        subject = " and ".join(self.noun_phrase(thing) for thing in scene.things)
        if scene.companion:
            subject += f" {self.wording(language.beside)} {with_article(scene.companion)}"
        if scene.side:
            subject += f" {language.sides[scene.side]}"
        named = scene.place == "plain" or self.random.random() >= 0.08
        where = ""
        if named and scene.place == "plain":
            where = f"on {with_article(scene.backdrop)} background"
        elif named:
            where = self.wording(language.places[scene.place])
        carrier = self.one_of(language.carriers[scene.style])
        form = self.form(language.forms if where else language.bare)
        return sentence(form, carrier, subject, where), named


@cache
def template_attributes(template: str) -> tuple[tuple[str, str], ...]:
    """What a template says of the scene around its phrase: judge B's head and its label.

    The heads are ``place``, where one is named, and ``style``.
    """
    language = load_language()
    found = []
    for place, phrases in {**language.places, "plain": (language.backdrop,)}.items():
        for where in phrases:
            if template.startswith((f"{where}, ", f"{where} ")) or template.endswith(f" {where}"):
                found.append(("place", place))
    known = language.templates.get(template)
    return (*found, *([] if known is None else [("style", known.style)]))


def caption_attributes(caption: Caption) -> tuple[tuple[str, str], ...]:
    """What a caption says of its scene besides the object, by judge B's heads, where named."""
    heads = ("colour", "pattern", "companion", "place", "style")
    said = [(head, getattr(caption, head)) for head in heads]
    return tuple((head, label) for head, label in said if label is not None)


def named_colour(phrase: str, noun: str) -> str | None:
    """The colour that a phrase gives its noun: "red" of "red banana"."""
    words = phrase.removesuffix(noun).split()
    return next((word for word in words if word in art.COLOURS), None)


def captions(
    split: str, *, seed: int = 0, single: bool = False, language: Language | None = None
) -> Iterator[Caption]:
    """Endless captioned scenes of a split; splits share no random stream and no picture seed.

    They are ``train``, ``judge`` (the judges' own scenes), ``test``, ``reference`` (FID) and
    ``composition`` (held-out combinations among them); ``seed`` is another stream of the same one.
    ``single`` gives only scenes with one object (and perhaps its companion).
    """
    stream = SPLITS[split]
    language = language or load_language()
    drawer = _Drawer(
        language,
        load_lexicon(),
        np.random.default_rng([stream, seed]),
        all_combinations=split not in language.held_out_from,
    )
    index = 0
    while True:
        scene = drawer.scene(single=single)
        text, named = drawer.describe(scene)
        yield Caption(text, scene, (stream * 1000 + seed) * 10_000_000 + index, named)
        index += 1


def held_out(
    n: int,
    seed: int = 0,
    split: str = "test",
    *,
    single: bool = True,
    language: Language | None = None,
) -> list[Caption]:
    """The first ``n`` captions of a split with distinct texts (single-object by default)."""
    found: dict[str, Caption] = {}
    for caption in captions(split, seed=seed, single=single, language=language):
        found.setdefault(caption.text, caption)
        if len(found) == n:
            break
    return list(found.values())
