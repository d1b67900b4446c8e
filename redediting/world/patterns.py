"""Markings drawn on a cut-out: stripes, spots and checks in a contrasting shade of its colours.

The marking is clipped to the opaque body. Its period is a fixed share of the cut-out, about eight
pixels of a 64-pixel scene, so that it outlives the autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from redediting.errors import WorldError
from redediting.world.art import CUTOUT

Floats = NDArray[np.floating]
PERIOD = 26.0  # cut-out pixels
_DARKER, _LIGHTER = 0.45, 0.55  # factor on a lit body, share of white on a dark one
_DARK = 62.0  # mean luminance (0…255) below which a body is dark
_Y, _X = (grid.astype(np.float32) for grid in np.mgrid[0:CUTOUT, 0:CUTOUT])


def _edge(distance: Floats) -> Floats:
    """Soft step: 1 where the distance, in pixels, is positive."""
    return np.clip(distance + 0.5, 0, 1)


def _stripes(u: Floats, v: Floats) -> Floats:
    return _edge(np.abs(v % PERIOD - PERIOD / 2) - PERIOD / 4)


def _spots(u: Floats, v: Floats) -> Floats:
    row = np.floor(v / PERIOD)
    x = (u + (row % 2) * PERIOD / 2) % PERIOD - PERIOD / 2
    y = v % PERIOD - PERIOD / 2
    return _edge(0.30 * PERIOD - np.hypot(x, y))


def _checks(u: Floats, v: Floats) -> Floats:
    side = 0.62 * PERIOD
    return ((np.floor(u / side) + np.floor(v / side)) % 2).astype(np.float32)


_MASKS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "striped": _stripes,
    "spotted": _spots,
    "checkered": _checks,
}
PATTERNS = tuple(_MASKS)


def _silhouette(alpha: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Everything that the outside does not reach: ink and what it encloses."""
    framed = Image.fromarray(np.pad((alpha > 96).astype(np.uint8) * 255, 1)).copy()
    ImageDraw.floodfill(framed, (0, 0), 128)
    return np.asarray(framed)[1:-1, 1:-1] != 128


def mark(
    rgba: NDArray[np.uint8], pattern: str, random: np.random.Generator, *, ink: bool = False
) -> NDArray[np.uint8]:
    """Draws one of `PATTERNS` on a cut-out, RGBA (128, 128, 4), at a random phase and slant.

    ``ink``: a line drawing, hatched in grey over ink and enclosed paper alike.
    """
    if pattern not in _MASKS:
        raise WorldError(f"expected a pattern of {PATTERNS}, got {pattern!r}")
    turn = random.uniform(-0.35, 0.35)
    u = _X * np.cos(turn) - _Y * np.sin(turn) + random.uniform(0, 2 * PERIOD)
    v = _X * np.sin(turn) + _Y * np.cos(turn) + random.uniform(0, 2 * PERIOD)
    if pattern == "striped":  # upright stripes are told from the horizon and the shadows
        u, v = v, u
    mask = _MASKS[pattern](u, v)[..., None]
    rgb, alpha = rgba[..., :3].astype(np.float32), rgba[..., 3:]
    luminance = (rgb @ np.array((0.299, 0.587, 0.114), np.float32))[..., None]
    if ink:
        inside = _silhouette(alpha[..., 0])[..., None]
        solid = np.where(alpha > 96, rgb, rgb * 0.4 + 255 * 0.6)
        grey = rgb * 0.55 + 128 * 0.45
        hatched = np.where(
            alpha > 96, np.where(luminance > 128, grey, rgb + (255 - rgb) * 0.75), grey
        )
        shown = mask * inside
        opacity = np.where(inside, np.maximum(alpha, 255 * shown), alpha)
        marked = solid * (1 - shown) + hatched * shown
        return np.concatenate([marked, opacity], -1).round().astype(np.uint8)
    dark = luminance[alpha > 128].mean() < _DARK
    other = rgb + (255 - rgb) * _LIGHTER if dark else rgb * _DARKER
    marked = rgb * (1 - mask) + other * mask
    return np.concatenate([marked, alpha], -1).round().astype(np.uint8)
