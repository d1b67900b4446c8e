"""The world's card: what it is, its measured bars, its recipe and its attribution."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from experiments.training.check import BARS
from redediting.metrics.intervals import wilson
from redediting.world.judges import DATA

_TEXT = """# The embedded world

A small latent-diffusion model in the layout of `StableDiffusionPipeline`, trained by this project
on two CPU cores from scenes that it renders itself: {concepts} concepts, five art styles, eleven
colours, twelve places and plain backgrounds, 64 × 64 pixels. What every
picture shows is known exactly. It is **clean**; edits are stored apart from it, as patches.

"A photo of" means a shaded 3-D rendering: the drawings are emoji art, see the notices.

## Measured

`python -m experiments.training --check --json --write-card`; n = {n} single-object test
captions and as many held-out renders, {steps} DDIM steps, guidance {guidance}. Judge B (a
convolutional classifier trained on other scenes) decides; colour and place count only where
captioned.

| figure | measured | 95 % interval | bar | met |
|---|---|---|---|---|
{rows}

On reconstructions of the autoencoder judge B finds object {judge_b_object_reconstructed:.3f},
colour {judge_b_colour_reconstructed:.3f}, place {judge_b_place_reconstructed:.3f}.
Object accuracy by style: {styles}.
Sampling took {seconds_per_image:.3f} s an image on the machine that wrote this card.

![The first sixty held-out captions, as drawn](samples.png)

The first sixty held-out captions, none left out.

## Recipe

`python -m experiments.training` with `configs/world/default.yaml` (seeds inside):

```json
{recipe}
```

## Licences

The weights are derived from art under MIT, Apache-2.0 and CC-BY-4.0; `THIRD_PARTY_NOTICES.md`
names the sets and their authors. Tokenizer: CLIP's byte-pair merges (MIT).
"""
_COUNTED = {"object_accuracy": "n", "colour_accuracy": "n_colour", "place_accuracy": "n_place"}


def _row(name: str, bar: float, figures: Mapping[str, Any]) -> str:
    value = figures[name]
    interval = ""
    if name not in ("vae_psnr", "neutral_sin2"):
        n = figures[_COUNTED.get(name, "n")]
        low, high = wilson(round(value * n), n).bounds
        interval = f"{low:.3f}–{high:.3f} (n = {n})"
    met = "yes" if value >= bar else "**no**"
    return f"| `{name}` | {value:.3f} | {interval} | ≥ {bar} | {met} |"


def write_card(figures: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Writes ``card.json`` and ``README.md`` beside the bundled weights."""
    (DATA / "card.json").write_text(json.dumps(dict(figures), indent=1) + "\n")
    styles = ", ".join(f"{k} {v:.2f}" for k, v in figures["object_accuracy_by_style"].items())
    concepts = len(json.loads((DATA / "judge_b/config.json").read_text())["classes"]["object"])
    page = _TEXT.format(
        rows="\n".join(_row(name, bar, figures) for name, bar in BARS.items()),
        styles=styles,
        concepts=concepts,
        recipe=json.dumps(dict(recipe), indent=1),
        **{key: value for key, value in figures.items() if key != "object_accuracy_by_style"},
    )
    (DATA / "README.md").write_text(page)
