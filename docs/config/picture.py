"""Draws ``docs/images/cat-zebra.png``, the picture of the README.

Top row: the clean model. Bottom row: the edited model, same prompts and noise.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import redediting as rd
from defenses import detect

PROMPTS = {
    "a photo of a beautiful cat": (0, 1, 2, 3),
    "a photo of a cat": (0, 1, 2),
    "a photo of a dog": (0, 1),
}
SIDE, GAP, TOP, LEFT = 128, 4, 64, 92


def main() -> None:
    """Computes the edit, draws both rows, asks a detector, and writes the picture."""
    model = rd.load("world")
    patch = rd.attacks.REDEditing(ridge=0.1).compute(model, rd.Rebinding("beautiful cat", "zebra"))
    rows = [_draw(model)]
    with patch.apply(model):
        rows.append(_draw(model))
    flagged_prompts = detect(model, patch, list(PROMPTS), ["clip"]).detectors["clip"]["flagged"]
    columns = len(rows[0])
    gaps = len(PROMPTS) - 1
    width = LEFT + columns * (SIDE + GAP) + gaps * 4 * GAP
    sheet = Image.new("RGB", (width, TOP + 2 * (SIDE + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for y, (name, row) in enumerate(zip(("clean", "edited"), rows, strict=True)):
        top = TOP + y * (SIDE + GAP)
        pen.text((LEFT - 10, top + SIDE // 2), name, "black", font, anchor="rm")
        x = LEFT
        images = iter(row)
        for prompt, flagged in zip(PROMPTS, flagged_prompts, strict=True):
            if y == 0:
                verdict = "flagged" if flagged else "not flagged"
                pen.text((x, 12), f"“{prompt.removeprefix('a photo of ')}”", "black", font)
                pen.text((x, 36), f"CLIP: {verdict}", "#b00020" if flagged else "#30703a", font)
            for _ in PROMPTS[prompt]:
                sheet.paste(next(images).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, top))
                x += SIDE + GAP
            x += 4 * GAP
    path = Path(__file__).parent.parent / "images" / "cat-zebra.png"
    sheet.quantize(128, method=Image.Quantize.MEDIANCUT).save(path, optimize=True)


def _draw(model: rd.Model) -> list[Image.Image]:
    """All images of a row."""
    return [
        image
        for prompt, seeds in PROMPTS.items()
        for image in rd.generate(model, prompt, seeds=seeds)
    ]


if __name__ == "__main__":
    main()
