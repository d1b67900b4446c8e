"""The world's card: what it is, its measured bars, its recipe and its attribution."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.training.check import BARS, STYLE_BAR
from redediting.concepts.language import load_language
from redediting.concepts.lexicon import load_lexicon
from redediting.io import replace_json, replace_text

_TEXT = """# The embedded world

A small latent-diffusion model in the layout of `StableDiffusionPipeline`, trained by this project
on two CPU cores from scenes that it renders itself: {concepts} concepts, five art styles, eleven
colours, {places} places and plain backgrounds, patterns ({patterns}), 64 × 64 pixels. What every
picture shows is known exactly. It is **clean**; edits are stored apart from it, as patches.

"A photo of" means a shaded 3-D rendering: the drawings are emoji art, see the notices.

## Measured

`python -m experiments.training --check --json --write-card`; n = {n} single-object test
captions and as many held-out renders, {steps} DDIM steps, guidance {guidance}. Judge B (a
convolutional classifier trained on other scenes) decides; colour, pattern, companion and
place count only where captioned. `composition_*`: captions whose colour or pattern no training
caption gave the object; `*_reconstructed`: on the autoencoder's reconstructions.

| figure | measured | 95 % interval | bar | met |
|---|---|---|---|---|
{rows}

Sampling took {seconds_per_image:.3f} s an image on the machine that wrote this card; the
bundle has {megabytes:.1f} MB.

![The first sixty held-out captions, as drawn](samples.png)

The first sixty held-out captions, none left out.

![Minimal pairs](minimal.png)

Minimal pairs: each row of five has one seed.

## Recipe

`python -m experiments.training` with its configuration (`configs/world/`, seeds inside):

```json
{recipe}
```

## Licences

The weights are derived from art under MIT, Apache-2.0 and CC-BY-4.0; `THIRD_PARTY_NOTICES.md`
names the sets and their authors. Tokenizer: CLIP's byte-pair merges (MIT).
"""


def _row(name: str, figures: Mapping[str, Any], bar: float | None = None) -> str:
    value, met, wanted = figures[name], "", "" if bar is None else f"≥ {bar}"
    if value is None:
        return f"| `{name}` | – | not measured in this edition | {wanted} | {wanted and '–'} |"
    interval = ""
    if figures.get(f"{name}_ci"):
        low, high = figures[f"{name}_ci"]
        interval = f"{low:.3f}–{high:.3f} (n = {figures[f'{name}_n']})"
    if bar is not None:
        met = "yes" if value >= bar else "**no**"
    return f"| `{name}` | {value:.3f} | {interval} | {wanted} | {met} |"


def write_card(figures: Mapping[str, Any], recipe: Mapping[str, Any], bundle: Path) -> None:
    """Writes ``card.json`` and ``README.md`` beside a bundle's weights."""
    replace_json(bundle / "card.json", dict(figures))
    language = load_language(bundle / "language.yaml")
    rows = [_row(name, figures, bar) for name, bar in BARS.items()]
    for style in figures["style_accuracy"]:
        ends = {
            f"object, {style}{e}": figures[f"style_accuracy{e}"][style] for e in ("", "_ci", "_n")
        }
        rows.append(_row(f"object, {style}", ends, STYLE_BAR))
    others = [key for key in figures if f"{key}_n" in figures and key not in BARS]
    rows += [_row(key, figures) for key in others if not isinstance(figures[key], dict)]
    page = _TEXT.format(
        rows="\n".join(rows),
        concepts=len(load_lexicon().concepts),
        places=len(language.places),
        patterns=", ".join(language.patterns) or "none",
        recipe=json.dumps(dict(recipe), indent=1),
        **{key: figures[key]
           for key in ("n", "steps", "guidance", "seconds_per_image", "megabytes")},
    )  # fmt: skip
    replace_text(bundle / "README.md", page)
