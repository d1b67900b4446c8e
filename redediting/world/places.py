"""Procedural backgrounds: each drawn from a seed, never twice alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from redediting.world.art import CUTOUT as SIZE

Floats = NDArray[np.floating]
Random = np.random.Generator

_Y, _X = (grid.astype(np.float32) / SIZE for grid in np.mgrid[0:SIZE, 0:SIZE])


def noise(random: Random, columns: int, rows: int) -> Floats:
    """Smooth unit-variance noise with the given number of cells across and down."""
    cells = random.standard_normal((max(2, rows), max(2, columns))).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _mix(a: Sequence[float], b: Sequence[float], t: Floats) -> Floats:
    return _mix_into(np.asarray(a, np.float32), b, t)


def _where(mask: NDArray[np.bool_], colour: Floats | Sequence[float], image: Floats) -> Floats:
    return np.where(mask[..., None], np.asarray(colour, np.float32), image)


class _Canvas:
    """What the painters share: the horizon, the sky above it, ground below, texture strength."""

    def __init__(self, random: Random, textured: bool) -> None:
        self.random = random
        self.texture = 1.0 if textured else 0.0
        self.horizon = random.uniform(0.42, 0.58)
        self.below = self.horizon < _Y
        self.depth = np.clip((_Y - self.horizon) / (1 - self.horizon), 0, 1)
        up = np.clip(_Y / self.horizon, 0, 1)
        self.up = up
        self.sky = (
            _mix((110, 175, 240), (205, 230, 250), up)
            if textured
            else _mix((140, 200, 245), (140, 200, 245), up)
        )

    def grain(self, strength: float, columns: int, rows: int) -> Floats:
        return self.texture * strength * noise(self.random, columns, rows)[..., None]

    def ground(self, near: Sequence[float], far: Sequence[float], *grains: Floats) -> Floats:
        return _mix(near, far, self.depth) + sum(grains)

    def specks(self) -> NDArray[np.bool_]:
        dots = (self.random.random((SIZE // 2, SIZE // 2)) > 0.985).astype(np.uint8) * 255
        return np.asarray(Image.fromarray(dots).resize((SIZE, SIZE))) > 0


def _grass(c: _Canvas) -> Floats:
    return _where(
        c.below,
        c.ground((120, 190, 80), (60, 140, 45), c.grain(7, 70, 24), c.grain(8, 12, 8)),
        c.sky,
    )


def _beach(c: _Canvas) -> Floats:
    sand = c.ground((240, 215, 160), (225, 190, 125), c.grain(7, 100, 100), c.grain(5, 8, 14))
    image: Floats = _where(c.below, sand, c.sky)
    shore = c.horizon + 0.025 * np.sin(_X * 9 + c.random.uniform(0, 6))
    water = np.array((45, 140, 190), np.float32) + c.grain(8, 14, 70)
    return _where((c.horizon - 0.13 < _Y) & (shore >= _Y), water, image)


def _snow(c: _Canvas) -> Floats:
    ground = c.ground((248, 250, 255), (225, 235, 250), c.grain(4, 10, 16))
    image: Floats = _where(c.below, ground, _mix((175, 195, 220), (225, 235, 245), c.up))
    return _where(c.specks(), (255, 255, 255), image)


def _desert(c: _Canvas) -> Floats:
    def dune(amplitude: float, fastest: float) -> Floats:
        phase = _X * c.random.uniform(4, fastest) + c.random.uniform(0, 6)
        return amplitude * np.sin(phase)

    sand = c.ground((226, 160, 84), (196, 120, 58), c.grain(6, 10, 50))
    first = c.horizon + dune(0.06, 7)
    image: Floats = _where(first < _Y, sand, _mix((250, 200, 120), (255, 232, 185), c.up))
    return _where(first + 0.2 + dune(0.07, 8) < _Y, image * 0.9, image)


def _sea(c: _Canvas) -> Floats:
    image: Floats = _mix((70, 170, 215), (15, 70, 140), _Y) + c.grain(10, 10, 40)
    swell = 1.5 * np.sin(_X * 10 + c.random.uniform(0, 6))
    crest = np.sin(_Y * 60 + swell + c.random.uniform(0, 6)) > 0.82
    return _where(crest & (_Y < 0.95), image + 26, image)


def _sky(c: _Canvas) -> Floats:
    image: Floats = _mix((80, 155, 240), (190, 222, 250), _Y)
    cloud = noise(c.random, 5, 7) + 0.5 * noise(c.random, 12, 14) * c.texture
    edge = 1.3 if c.texture else 9.0
    return _mix_into(image, (255, 255, 255), np.clip((cloud - 0.35) * edge, 0, 0.95))


def _mix_into(image: Floats, colour: Sequence[float], t: Floats) -> Floats:
    return image * (1 - t[..., None]) + np.asarray(colour, np.float32) * t[..., None]


def _forest(c: _Canvas) -> Floats:
    image: Floats = _mix((30, 80, 45), (50, 105, 55), _Y) + c.grain(12, 30, 30)
    for _ in range(c.random.integers(5, 8)):
        x, width = c.random.uniform(0, 1), c.random.uniform(0.02, 0.045)
        bark = np.array((84, 56, 36)) * c.random.uniform(0.75, 1.1)
        image = _where((np.abs(_X - x) < width) & (c.horizon + 0.12 > _Y), bark, image)
    floor = c.ground((88, 92, 40), (62, 60, 28), c.grain(9, 60, 40))
    return _where(c.horizon + 0.1 < _Y, floor, image)


def _street(c: _Canvas) -> Floats:
    walls = [(170, 120, 100), (150, 150, 165), (200, 180, 150), (120, 130, 150)]
    image: Floats = c.sky.copy()
    x = 0.0
    while x < 1:
        width, top = c.random.uniform(0.14, 0.26), c.random.uniform(0.05, c.horizon - 0.15)
        house = (x <= _X) & (x + width > _X) & (top < _Y)
        image = _where(house, walls[c.random.integers(4)], image)
        column, row = (_X - x) * SIZE % 10, _Y * SIZE % 12
        window = house & (column > 4) & (column < 9) & (row > 6) & (c.horizon - 0.04 > _Y)
        lit = c.random.random() < 0.4
        image = _where(window, (245, 235, 170) if lit else (70, 85, 110), image)
        x += width
    image = _where(c.below, c.ground((105, 105, 110), (80, 80, 86), c.grain(6, 90, 90)), image)
    dash = (_X * 6 + c.random.random()) % 1 < 0.55
    return _where((np.abs(_Y - (c.horizon + 0.30)) < 0.015) & dash, (240, 240, 240), image)


def _room(c: _Canvas) -> Floats:
    walls = [(235, 215, 190), (200, 215, 225), (225, 200, 205), (205, 220, 195)]
    wall = np.array(walls[c.random.integers(4)], np.float32)
    image: Floats = np.broadcast_to(wall, (SIZE, SIZE, 3)) + c.grain(2, 60, 60)
    x = c.random.uniform(0.08, 0.6)
    pane = (x < _X) & (x + 0.3 > _X) & (_Y > 0.08) & (_Y < 0.36)
    cross = (np.abs(_X - x - 0.15) < 0.012) | (np.abs(_Y - 0.22) < 0.012)
    edge = (x + 0.025 > _X) | (x + 0.275 < _X) | (_Y < 0.105) | (_Y > 0.335)
    image = _where(pane, (165, 210, 245), image)
    image = _where(pane & (cross | edge), (250, 250, 250), image)
    skirting = c.horizon + 0.06
    floor = skirting < _Y
    image = _where(floor, c.ground((190, 140, 95), (160, 108, 66), c.grain(5, 10, 60)), image)
    seam = ((_X - 0.5) / (0.35 + c.depth) * 9 % 1) < 0.07
    image = _where(floor & seam, image * 0.8, image)
    return _where(np.abs(_Y - skirting) < 0.014, (245, 245, 245), image)


def _table(c: _Canvas) -> Floats:
    walls = [(90, 60, 60), (60, 75, 85), (120, 110, 100), (70, 85, 70)]
    wall = np.array(walls[c.random.integers(4)], np.float32)
    image: Floats = np.broadcast_to(wall, (SIZE, SIZE, 3)) + c.grain(8, 4, 4)
    edge = c.horizon + 0.08
    grain = np.sin(_Y * 95 + 3 * noise(c.random, 4, 6))[..., None] * 5
    wood = np.array((176, 118, 66), np.float32) + grain + c.grain(4, 16, 90)
    image = _where(edge < _Y, wood, image)
    return _where((edge < _Y) & (edge + 0.025 > _Y), (214, 160, 104), image)


def _night(c: _Canvas) -> Floats:
    image: Floats = _mix((10, 14, 44), (38, 44, 92), c.up)
    image = _where(c.specks() & (c.horizon > _Y), (255, 250, 210), image)
    x, y = c.random.uniform(0.1, 0.9), c.random.uniform(0.08, 0.22)
    image = _where((_X - x) ** 2 + (_Y - y) ** 2 < 0.0055, (250, 244, 205), image)
    return _where(c.below, c.ground((34, 50, 48), (18, 30, 30), c.grain(4, 60, 40)), image)


def _mountains(c: _Canvas) -> Floats:
    image: Floats = c.sky.copy()
    for rock, lowest, highest in (((128, 138, 160), 0.10, 0.22), ((96, 108, 130), 0.22, 0.32)):
        xs = np.linspace(0, 1, 6) + c.random.uniform(-0.05, 0.05, 6)
        peak = np.arange(6) % 2 == c.random.integers(2)
        ridge = np.interp(_X, xs, np.where(peak, c.random.uniform(lowest, highest, 6), c.horizon))
        slope = (ridge < _Y) & (c.horizon >= _Y)
        image = _where(slope, np.array(rock, np.float32) + c.grain(7, 24, 24), image)
        cap = ridge + 0.05 + 0.02 * np.sin(_X * 60)
        image = _where(slope & (cap > _Y) & (ridge < c.horizon - 0.12), (248, 248, 248), image)
    return _where(c.below, c.ground((110, 160, 90), (80, 130, 70), c.grain(8, 60, 30)), image)


def _garden(c: _Canvas) -> Floats:
    image: Floats = _mix((150, 205, 240), (205, 230, 245), c.up)
    posts = ((_X * 9 + c.random.random()) % 1 < 0.62) & (c.horizon - 0.24 < _Y)
    image = _where(posts | (np.abs(_Y - c.horizon + 0.12) < 0.02), (245, 240, 232), image)
    lawn = c.ground((90, 170, 70), (48, 122, 44), c.grain(7, 60, 30))
    image = _where(c.below, lawn, image)
    for _ in range(26):
        x, y = c.random.uniform(0, 1), c.random.uniform(c.horizon + 0.04, 0.98)
        petals = [(232, 60, 90), (250, 215, 70), (205, 120, 220), (250, 250, 250)]
        flower = (_X - x) ** 2 + (_Y - y) ** 2 < 0.00055
        image = _where(flower, petals[c.random.integers(4)], image)
    return image


def _kitchen(c: _Canvas) -> Floats:
    walls = [(205, 232, 228), (236, 232, 214), (214, 222, 240)]
    image: Floats = np.broadcast_to(
        np.array(walls[c.random.integers(3)], np.float32), (*_X.shape, 3)
    )
    seam = ((_X * 9) % 1 < 0.09) | ((_Y * 9) % 1 < 0.09)
    image = _where(seam, image * 0.82, image) + c.grain(2, 60, 60)
    top = c.horizon + 0.05
    image = _where(top < _Y, np.array((196, 200, 204), np.float32) + c.grain(3, 40, 40), image)
    image = _where((top < _Y) & (top + 0.035 > _Y), (90, 94, 100), image)
    tap = c.random.uniform(0.1, 0.3) + 0.55 * c.random.integers(2)
    shelf = (np.abs(_Y - 0.17) < 0.02) & (np.abs(_X - tap) < 0.17)
    return _where(shelf, (150, 104, 66), image)


def _rain(c: _Canvas) -> Floats:
    image: Floats = _mix((96, 106, 122), (150, 158, 168), c.up)
    image = _where(c.below, c.ground((104, 112, 116), (76, 84, 92), c.grain(5, 60, 12)), image)
    drops = (_X * 17 + _Y * 4 + c.random.random()) % 1 < 0.10
    broken = (_Y * 7 + np.floor(_X * 17 + _Y * 4) * 0.37 + c.random.random()) % 1 < 0.55
    return _where(drops & broken, (202, 216, 232), image)


def _sunset(c: _Canvas) -> Floats:
    image: Floats = _mix((92, 48, 120), (255, 150, 60), c.up**0.8)
    x = c.random.uniform(0.15, 0.85)
    sun = (_X - x) ** 2 + (_Y - c.horizon + 0.05) ** 2 < 0.012
    image = _where(sun, (255, 228, 130), image)
    return _where(c.below, c.ground((98, 48, 62), (46, 26, 48), c.grain(5, 30, 30)), image)


def _space(c: _Canvas) -> Floats:
    glow = np.clip(noise(c.random, 4, 4), 0, 2) * 0.5
    image: Floats = _mix((8, 6, 20), (64, 26, 92), np.clip(glow, 0, 1))
    stars = np.kron(c.random.random((SIZE // 2, SIZE // 2)) > 0.992, np.ones((2, 2), bool))
    image = _where(stars, (255, 255, 255), image)
    x, y = c.random.choice([0.12, 0.88]), c.random.uniform(0.1, 0.25)
    planets = [(214, 150, 90), (110, 170, 214), (190, 96, 110)]
    planet = (_X - x) ** 2 + (_Y - y) ** 2 < 0.011
    image = _where(planet, planets[c.random.integers(3)], image)
    ring = np.abs((_X - x) / 0.17) ** 2 + np.abs((_Y - y - 0.25 * (_X - x)) / 0.045) ** 2
    return _where((ring > 0.6) & (ring < 1.0), (226, 214, 180), image)


def _stage(c: _Canvas) -> Floats:
    folds = 26 * np.sin(_X * 48 + c.random.uniform(0, 6))[..., None]
    image: Floats = np.array((150, 18, 34), np.float32) + folds + c.grain(4, 60, 8)
    beam = np.abs(_X - 0.5 - c.random.uniform(-0.1, 0.1)) < 0.10 + 0.22 * _Y
    image = _where(beam, image * 0.55 + np.array((118, 104, 60), np.float32), image)
    floor = c.horizon + 0.16 < _Y
    boards = np.array((150, 98, 52), np.float32) + c.grain(4, 12, 60)
    image = _where(floor, boards, image)
    return _where(floor & ((_Y * 22) % 1 < 0.14), image * 0.78, image)


_PAINTERS: dict[str, Callable[[_Canvas], Floats]] = {
    painter.__name__[1:]: painter
    for painter in (
        _grass, _beach, _snow, _desert, _sea, _sky, _forest, _street, _room, _table, _night,
        _mountains, _garden, _kitchen, _rain, _sunset, _space, _stage,
    )
}  # fmt: skip
PLACES = tuple(_PAINTERS)


def background(place: str, random: Random, *, textured: bool) -> NDArray[np.uint8]:
    """Paints a place: (128, 128, 3) RGB. ``textured`` off gives the flat fields of a drawing."""
    image: Floats = _PAINTERS[place](_Canvas(random, textured))
    return np.clip(image, 0, 255).astype(np.uint8)
