r"""Builds the atlas of drawings from npm packages of emoji art.

The result, ``redediting/world/data/atlas.npz``, is committed; this script is kept so that anyone
can rebuild or extend it by ``python -m experiments.training.build_atlas``. It needs
``pip install redediting[atlas]`` and a folder into which the packages were unpacked, one
subfolder ``NAME-VERSION`` each::

    npm pack @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto@1.2.9 \
        @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/twemoji@1.2.5 \
        @iconify-json/fluent-emoji-high-contrast@1.2.6 unicode-emoji-json@0.9.0
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from experiments.engine.console import run_main
from redediting.concepts.lexicon import load_lexicon
from redediting.errors import WorldError
from redediting.world.art import CUTOUT

NAMES = "unicode-emoji-json-0.9.0/data-by-emoji.json"
BITMAPS = ("3d", "lobehub-fluent-emoji-3d-1.1.0")
VECTORS = {
    "noto": "iconify-json-noto-1.2.9",
    "flat": "iconify-json-fluent-emoji-flat-1.2.6",
    "twe": "iconify-json-twemoji-1.2.5",
    "line": "iconify-json-fluent-emoji-high-contrast-1.2.6",
}
_OTHER_SLUGS = {"ewe": "sheep", "red-apple": "apple", "tangerine": "orange"}
_VISIBLE = 24  # alpha above which a pixel belongs to the drawing


@dataclass
class Options:
    """Rasterises every concept of the lexicon in five styles."""

    packages: Path
    """Folder with the unpacked npm packages."""
    out: Path = Path("redediting/world/data/atlas.npz")
    """The atlas."""


def _svg(icons: dict, slug: str) -> str | None:
    alias = icons.get("aliases", {}).get(slug, {}).get("parent", "")
    icon = icons["icons"].get(slug) or icons["icons"].get(alias)
    if icon is None:
        return None
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    body = icon["body"].replace("currentColor", "#000")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}">{body}</svg>'
    )


def _vector_source(folder: Path) -> Callable[[str], Image.Image | None]:
    import resvg_py

    icons = json.loads((folder / "icons.json").read_text("utf-8"))

    def load(slug: str) -> Image.Image | None:
        svg = _svg(icons, slug)
        if svg is None:
            return None
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256))
        return Image.open(io.BytesIO(png)).convert("RGBA")

    return load


def _bitmap_source(folder: Path, names: Path) -> Callable[[str], Image.Image | None]:
    table = json.loads(names.read_text("utf-8"))
    code = {
        entry["slug"].replace("_", "-"): "-".join(f"{ord(letter):04x}" for letter in emoji)
        for emoji, entry in table.items()
    }

    def load(slug: str) -> Image.Image | None:
        for stem in (code.get(slug, ""), code.get(slug, "").replace("-fe0f", "")):
            path = folder / "assets" / f"{stem}.webp"
            if path.is_file():
                return Image.open(path).convert("RGBA")
        return None

    return load


def _fit(image: Image.Image) -> np.ndarray:
    """Crops to what is visible, scales to 128 pixels and stands it on the lower edge."""
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > _VISIBLE)).getbbox())
    scale = CUTOUT / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGBA", (CUTOUT, CUTOUT))
    scaled = image.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(scaled, ((CUTOUT - size[0]) // 2, CUTOUT - size[1]))
    return np.asarray(canvas)


def build(options: Options) -> int:
    """Writes the atlas; returns the exit code."""
    needed = [options.packages / name for name in (NAMES, BITMAPS[1], *VECTORS.values())]
    if missing := [str(path) for path in needed if not path.exists()]:
        raise WorldError(f"expected unpacked npm packages, got no {', '.join(missing)}")
    sources = {BITMAPS[0]: _bitmap_source(options.packages / BITMAPS[1], needed[0])}
    sources |= {name: _vector_source(options.packages / path) for name, path in VECTORS.items()}
    concepts = load_lexicon(trained_only=False).concepts
    art = np.zeros((len(concepts), len(sources), CUTOUT, CUTOUT, 4), np.uint8)
    for i, concept in enumerate(tqdm(concepts.values(), "atlas")):
        for j, (style, load) in enumerate(sources.items()):
            image = load(concept.emoji) or load(_OTHER_SLUGS.get(concept.emoji, ""))
            if image is None:
                raise WorldError(f"expected a drawing of {concept.emoji!r} in {style!r}, got none")
            art[i, j] = _fit(image)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_suffix(".partial.npz")
    np.savez_compressed(
        partial, art=art, concepts=np.array(list(concepts)), sets=np.array(list(sources))
    )
    partial.replace(options.out)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_main(lambda: build(tyro.cli(Options)))


if __name__ == "__main__":
    sys.exit(main())
