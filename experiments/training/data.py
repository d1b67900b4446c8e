"""Rendered splits of the world, cached on disk once."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from redediting.concepts.language import Language
from redediting.world.captions import Caption, captions
from redediting.world.scenes import IMAGE_SIZE, render


@dataclass(frozen=True)
class Split:
    """Captions and their pictures: uint8, (n, size, size, 3)."""

    captions: list[Caption]
    images: torch.Tensor

    def __len__(self) -> int:
        return len(self.captions)


def _draw(caption: Caption) -> np.ndarray:
    return render(caption.scene, caption.seed)


def render_all(items: Sequence[Caption], *, progress: bool = True) -> np.ndarray:
    """Renders captions on every core: uint8, (n, size, size, 3)."""
    images = np.empty((len(items), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        drawn = pool.imap(_draw, items, chunksize=64)
        for i, image in enumerate(tqdm(drawn, "render", len(items), disable=not progress)):
            images[i] = image
    return images


def load_split(
    folder: Path, split: str, n: int, *, single: bool = False, language: Language | None = None
) -> Split:
    """The first ``n`` scenes of a split; rendered at the first call, read from disk later."""
    items = list(islice(captions(split, single=single, language=language), n))
    stem = folder / f"{split}-{n}{'-single' if single else ''}"
    texts = stem.with_suffix(".json")
    pictures = stem.with_suffix(".npy")
    recorded = json.loads(texts.read_text()) if texts.is_file() and pictures.is_file() else None
    if recorded != [item.text for item in items]:  # absent, or drawn by another recipe
        folder.mkdir(parents=True, exist_ok=True)
        partial = stem.with_suffix(".partial.npy")
        np.save(partial, render_all(items))
        partial.replace(pictures)
        texts.write_text(json.dumps([item.text for item in items]))
    return Split(items, torch.from_numpy(np.load(pictures, mmap_mode="c")))


def as_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, h, w, 3) in 0…255 to float (n, 3, h, w) in −1…1, channels last in memory."""
    pixels = images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return pixels.contiguous(memory_format=torch.channels_last)
