"""A contact sheet: pictures with their captions below, in the order given."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS = 10
ZOOM = 2
_LINES, _LINE, _GAP = 3, 11, 6  # lines of caption, pixels a line, pixels between pictures
_LETTER = 6  # width of a letter of pillow's built-in font, pixels


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], path: Path) -> None:
    """Writes a PNG with every picture at twice its size."""
    side = pictures[0].width * ZOOM
    width, height = side + _GAP, side + _LINES * _LINE + _GAP
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % COLUMNS * width, i // COLUMNS * height
        sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        lines = textwrap.wrap(caption, side // _LETTER)[:_LINES]
        pen.multiline_text((x, y + side), "\n".join(lines), fill="black", spacing=0, font_size=10)
    sheet.save(path, optimize=True)
