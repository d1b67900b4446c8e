"""The atlas: 128-pixel cut-outs of every concept in five drawing styles, and their colouring.

The atlas is built by ``experiments.training.build_atlas`` from npm packages of emoji art
(attribution in ``THIRD_PARTY_NOTICES.md``) and committed; drawing needs numpy and pillow only.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from redediting.errors import WorldError

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

CUTOUT = 128  # pixels
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (242, 130, 28),
    "yellow": (247, 212, 48),
    "green": (52, 158, 66),
    "blue": (40, 96, 212),
    "purple": (128, 62, 182),
    "pink": (248, 140, 188),
    "brown": (122, 76, 42),
    "black": (36, 36, 40),
    "white": (242, 242, 242),
    "gray": (138, 138, 144),
}

# sRGB ↔ CIE Lab, D65 (IEC 61966-2-1, CIE 15:2004)
_RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
)
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ).astype(np.float32)
_WHITE = np.array([0.9505, 1.0, 1.089], np.float32)


def rgb_to_lab(rgb: NDArray[np.generic]) -> Floats:
    """SRGB in 0…255, shape (…, 3), to CIE Lab (L in 0…100)."""
    x = np.asarray(rgb, np.float32) / 255
    linear = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    xyz = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(lab, -1).astype(np.float32)


def lab_to_rgb(lab: Floats) -> Floats:
    """CIE Lab to sRGB in 0…255, clipped to the gamut."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    xyz = np.where(f > 0.2069, f**3, (f - 16 / 116) / 7.787) * _WHITE
    linear = np.clip(xyz @ _XYZ_TO_RGB.T, 0, 1)
    x = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (np.clip(x, 0, 1) * 255).astype(np.float32)


_LAB = {name: rgb_to_lab(np.array(rgb)) for name, rgb in COLOURS.items()}


@functools.cache
def _atlas() -> dict[tuple[str, str], Image]:
    file = resources.files("redediting.world").joinpath("data/atlas.npz")
    if not file.is_file():
        raise WorldError(
            f"expected the atlas at {file}; run python -m experiments.training.build_atlas"
        )
    with resources.as_file(file) as path, np.load(path) as data:
        art = data["art"]
        return {
            (str(concept), str(style)): art[i, j]
            for i, concept in enumerate(data["concepts"])
            for j, style in enumerate(data["sets"])
        }


def cutout(concept: str, art_set: str) -> Image:
    """The drawing of a concept: RGBA, (128, 128, 4), standing on the lower edge."""
    try:
        return _atlas()[concept, art_set]
    except KeyError:
        raise WorldError(
            f"expected a drawing in the atlas, got {concept!r} as {art_set!r}"
        ) from None


def _dominant_hue(lab: Floats) -> NDArray[np.floating]:
    """Mode of (a, b) among pixels that are neither ink nor paper; zero for a grey drawing."""
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    white, dark = (lab[:, 0] > 78) & (chroma < 16), lab[:, 0] < 22
    source = lab[~dark & ~((lab[:, 0] > 93) & (chroma < 8))]
    if white.mean() >= 0.40 or len(source) <= 0.25 * len(lab):
        return np.zeros(2)
    counts, a, b = np.histogram2d(
        source[:, 1], source[:, 2], bins=20, range=[[-100, 100], [-100, 100]]
    )
    i, j = np.unravel_index(counts.argmax(), counts.shape)
    mode = np.array([(a[i] + a[i + 1]) / 2, (b[j] + b[j + 1]) / 2])
    for _ in range(3):  # mean shift
        near = np.hypot(source[:, 1] - mode[0], source[:, 2] - mode[1]) < 22
        if near.any():
            mode = source[near, 1:].mean(0)
    return mode


def _angle(a: NDArray[np.floating], b: NDArray[np.floating], to: float) -> NDArray[np.floating]:
    return np.abs((np.arctan2(b, a) - to + np.pi) % (2 * np.pi) - np.pi)


def _body_mask(lab: Floats, opaque: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Soft mask (0…1) of the drawing's dominant colour and its shades."""
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    chroma = np.hypot(a, b)
    pixels = lab[opaque]
    mode = _dominant_hue(pixels)
    if np.hypot(*mode) > 14:

        def family(width: float) -> NDArray[np.floating]:
            hue = _angle(a, b, float(np.arctan2(mode[1], mode[0])))
            soft = np.clip((width - hue) / 0.35, 0, 1) * np.clip((chroma - 6) / 8, 0, 1)
            near = np.clip((26 - np.hypot(a - mode[0], b - mode[1])) / 10, 0, 1)
            return np.maximum(soft, near)

        mask = family(1.05)
        return mask if mask[opaque].mean() >= 0.55 else family(1.9)
    if (pixels[:, 0] < 22).mean() > 0.6:  # a black drawing
        return np.clip((24 - chroma) / 8, 0, 1)
    not_ink = np.clip((lightness - 18) / 14, 0, 1)
    mask = np.clip((24 - chroma) / 8, 0, 1) * not_ink
    return mask if mask[opaque].mean() >= 0.55 else np.clip((44 - chroma) / 10, 0, 1) * not_ink


def recolour(rgba: Image, colour: str, *, ink: bool = False) -> Image:
    """Moves the dominant colour of a cut-out, and its shades, to ``colour`` in Lab space.

    Eyes, tyres and other accents keep their colour. With ``ink`` (line drawings) every opaque
    pixel takes the colour.
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if ink:
        flat = np.broadcast_to(np.array(COLOURS[colour], np.uint8), rgb.shape)
        return np.concatenate([flat, alpha], -1)
    lab, opaque, to = rgb_to_lab(rgb), alpha[..., 0] > 128, _LAB[colour]
    mask = _body_mask(lab, opaque)
    mean = np.average(lab[..., 0], weights=mask * opaque + 1e-6)
    contrast = 0.55 if colour in ("white", "black") else 0.75
    lightness = to[0] + (lab[..., 0] - mean) * contrast
    shade = np.clip(lightness / max(float(to[0]), 1.0), 0.55, 1.15)
    new = np.stack([np.clip(lightness, 4, 98), to[1] * shade, to[2] * shade], -1)
    mixed = (lab * (1 - mask[..., None]) + new * mask[..., None]).astype(np.float32)
    return np.concatenate([lab_to_rgb(mixed).astype(np.uint8), alpha], -1)


@functools.cache
def recoloured(concept: str, art_set: str, colour: str) -> Image:
    """:func:`recolour` of a cut-out, kept in memory: training draws each thousands of times."""
    return recolour(cutout(concept, art_set), colour, ink=art_set == "line")


@functools.cache
def colourable(concept: str, art_set: str) -> bool:
    """Whether recolouring changes most of the drawing: ≥ 45 % of its opaque pixels, measured."""
    if art_set == "line":
        return True
    opaque = cutout(concept, art_set)[..., 3] > 128
    shares = []
    for colour in ("blue", "green", "red"):
        lab = rgb_to_lab(recoloured(concept, art_set, colour)[..., :3])[opaque]
        to = float(np.arctan2(_LAB[colour][2], _LAB[colour][1]))
        chroma = np.hypot(lab[:, 1], lab[:, 2])
        shares.append(((_angle(lab[:, 1], lab[:, 2], to) < 0.5) & (chroma > 20)).mean())
    return bool(min(shares) > 0.45)
