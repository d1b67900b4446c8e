"""Scenes: what a picture shows, as data, and its rendering.

A scene and a seed determine the picture. Everything a caption can say is an attribute of the
scene, so the ground truth of every image is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from redediting.world import art
from redediting.world.patterns import mark
from redediting.world.places import background, noise

IMAGE_SIZE = 64
STYLES: dict[str, str] = {  # style → art set of the atlas
    "photo": "3d",
    "cartoon": "noto",
    "flat": "flat",
    "sticker": "twe",
    "line": "line",
}
SIZES: dict[str, float] = {"small": 0.42, "big": 0.88}  # share of the picture's height
_NORMAL, _ONE_OF_TWO = 0.66, 0.48
_WITH_COMPANION, _COMPANION = 0.60, 0.34
_CENTRES = {None: 0.5, "left": 0.29, "middle": 0.5, "right": 0.71}
_DRAWINGS = {"ball": "basketball"}  # of companions whose name is not the atlas's
_AFLOAT = ("sea", "sky", "space", "plain")
_Y = np.mgrid[0 : art.CUTOUT, 0 : art.CUTOUT][0].astype(np.float32) / art.CUTOUT


@dataclass(frozen=True)
class Thing:
    """One object of a scene. ``colour`` and ``pattern`` None leave the natural look."""

    concept: str
    colour: str | None = None
    size: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Scene:
    """Objects, a place (``plain`` or one of PLACES), a style, a position and a companion."""

    things: tuple[Thing, ...]
    place: str
    style: str = "photo"
    backdrop: str = "white"  # colour of a plain background
    side: str | None = None  # left | middle | right
    companion: str | None = None  # a small object beside a single thing


def _paper(scene: Scene, random: np.random.Generator) -> Image.Image:
    """The canvas of a line drawing: paper, with the place in pale ink."""
    grain = 2 * noise(random, 60, 60)[..., None]
    paper = np.clip(np.array((250, 247, 238.0)) + grain, 0, 255)
    if scene.place != "plain":
        place = background(scene.place, random, textured=False)
        grey = np.asarray(Image.fromarray(place).convert("L"), np.float32)
        down, across = np.gradient(grey)
        edge = np.clip((np.abs(down) + np.abs(across)) / 30, 0, 1)[..., None]
        paper = (paper * 0.70 + place * 0.30) * (1 - 0.40 * edge)
    return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))


def _canvas(scene: Scene, random: np.random.Generator) -> Image.Image:
    textured = scene.style == "photo"
    if scene.style == "line":
        return _paper(scene, random)
    if scene.place == "plain":
        colour = np.array(art.COLOURS[scene.backdrop], np.float32)
        if scene.backdrop not in ("white", "black"):
            colour = colour * 0.8 + 45  # paler than the objects that carry the same colour name
        shade = 1 - 0.13 * (_Y - 0.3) * textured
        flat = np.broadcast_to(colour, (art.CUTOUT, art.CUTOUT, 3)) * shade[..., None]
        return Image.fromarray(np.clip(flat, 0, 255).astype(np.uint8))
    image = Image.fromarray(background(scene.place, random, textured=textured))
    return image.filter(ImageFilter.GaussianBlur(0.8)) if textured else image


def _bordered(image: Image.Image) -> Image.Image:
    """Puts the white rim of a sticker around a cut-out."""
    padded = Image.new("RGBA", (image.width + 10, image.height + 10))
    padded.paste(image, (5, 5))
    rim = padded.getchannel("A").filter(ImageFilter.MaxFilter(7)).filter(ImageFilter.SMOOTH)
    base = Image.new("RGBA", padded.size, (255, 255, 255, 0))
    base.putalpha(rim)
    base.alpha_composite(padded)
    return base


def _drawing(
    scene: Scene,
    concept: str,
    colour: str | None,
    pattern: str | None,
    random: np.random.Generator,
) -> art.Image:
    """A cut-out in its colour and with its marking."""
    if colour is None and scene.style == "line" and scene.place in ("night", "space"):
        colour = "white"  # black ink would vanish
    art_set = STYLES[scene.style]
    drawing = art.recoloured(concept, art_set, colour) if colour else art.cutout(concept, art_set)
    return mark(drawing, pattern, random, ink=scene.style == "line") if pattern else drawing


def render(scene: Scene, seed: int, *, size: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """Draws a scene: RGB, (size, size, 3). The same scene and seed give the same picture."""
    random = np.random.default_rng(seed)
    canvas, photo = _canvas(scene, random), scene.style == "photo"

    def stand(drawing: art.Image, height: float, centre: float) -> None:
        """Pastes a cut-out with its lowest opaque pixel on the ground or, afloat, anywhere."""
        height *= random.uniform(0.94, 1.06)
        afloat = scene.place in _AFLOAT
        if afloat:
            foot = 0.5 + height / 2 + random.uniform(-0.03, 0.03)
        else:
            foot = min(0.97, random.uniform(0.84, 0.90) + max(0.0, height - 0.66) * 0.35)
        x, base = (centre + random.uniform(-0.03, 0.03)) * art.CUTOUT, foot * art.CUTOUT
        image = Image.fromarray(drawing)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        side = max(8, int(art.CUTOUT * height))
        image = image.resize((side, side), Image.Resampling.LANCZOS)
        image = image.rotate(random.uniform(-6, 6), Image.Resampling.BICUBIC)
        if scene.style == "sticker":
            image = _bordered(image)
        box = image.getchannel("A").getbbox() or (0, 0, image.width, image.height)
        if photo and (not afloat or scene.place == "plain"):
            half = (box[2] - box[0]) / 2
            mask = Image.new("L", canvas.size)
            oval = (x - half * 0.95, base - half * 0.20, x + half * 0.95, base + half * 0.14)
            ImageDraw.Draw(mask).ellipse(oval, fill=115)
            canvas.paste((20, 16, 16), (0, 0), mask.filter(ImageFilter.GaussianBlur(3)))
        canvas.paste(image, (int(x - image.width / 2), int(base - box[3])), image)

    centres = [_CENTRES[scene.side]] if len(scene.things) == 1 else [0.27, 0.73]
    if scene.companion:
        left = random.random() < 0.5
        centres = [0.62 if left else 0.38]
    for thing, centre in zip(scene.things, centres, strict=True):
        drawing = _drawing(scene, thing.concept, thing.colour, thing.pattern, random)
        height = SIZES.get(thing.size or "", _NORMAL)
        if len(scene.things) > 1:
            height = min(height, _ONE_OF_TWO)
        elif scene.side:
            height = min(height, 0.54)
        elif scene.companion:
            height = min(height, _WITH_COMPANION)
        stand(drawing, height, centre)
    if scene.companion:
        concept = _DRAWINGS.get(scene.companion, scene.companion)
        stand(_drawing(scene, concept, None, None, random), _COMPANION, 0.18 if left else 0.82)
    pixels: NDArray[np.floating] = np.asarray(
        canvas.resize((size, size), Image.Resampling.LANCZOS), np.float32
    )
    if photo:  # exposure and sensor noise
        pixels = (pixels - 128) * random.uniform(0.94, 1.06) + 128 + random.uniform(-6, 6)
        pixels = pixels + random.normal(0, 1.0, (size, size, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)
