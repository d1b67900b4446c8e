"""The two judges of the world: a convolutional classifier (B) and a small CLIP (A).

Both are trained on scenes that the text-to-image model never saw, with other architectures and
seeds than its parts. B decides (object, colour, place, style and, where it was trained on them,
pattern and companion); A gives CLIP scores, zero-shot
labels and the features of FID, CMMD and drift.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from redediting.errors import WorldError
from redediting.metrics.clip import ClipModel
from redediting.metrics.judge import Look
from redediting.text.encoding import padded_ids

SIZE = 64  # pixels, of both judges
DATA = Path(__file__).parent / "data"


def to_tensor(images: Sequence[Image.Image], size: int) -> torch.Tensor:
    """Pictures to float (n, 3, size, size) in −1…1; other sizes are resized (bicubic)."""
    sized = [  # pillow copies where the size is right already
        image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for image in images
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(x) for x in sized])).permute(0, 3, 1, 2)
    return pixels.float().div(127.5).sub(1)


def _stage(inside: int, outside: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU())


class SceneClassifier(nn.Module):
    """Judge B: ten convolutions, max pooling for what is there, mean pooling for where.

    ``classes`` are the labels of each head in order, ``width`` the channels of the first stage.
    """

    def __init__(self, classes: dict[str, list[str]], width: int = 32) -> None:
        super().__init__()
        self.classes = classes
        sizes = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 6 * width, 6 * width]
        strides = [1, 2, 1, 2, 1, 2, 1, 1]
        self.features = nn.Sequential(
            *(_stage(i, o, s) for i, o, s in zip(sizes, sizes[1:], strides, strict=False))
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(12 * width, len(labels)) for name, labels in classes.items()}
        )

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pixels (n, 3, 64, 64) in −1…1 to logits by head."""
        maps = self.features(pixels)
        pooled = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1)
        return {name: head(pooled) for name, head in self.heads.items()}


class JudgeB:
    """The deciding judge: argmax over all the world's concepts."""

    def __init__(self, model: SceneClassifier) -> None:
        self.model = model.eval()
        self.labels: tuple[str, ...] = tuple(model.classes["object"])

    @torch.no_grad()
    def look(self, images: Sequence[Image.Image], *, batch_size: int = 128) -> Look:
        """Labels pictures on every head."""
        found: dict[str, list[str]] = {name: [] for name in self.model.classes}
        for start in range(0, len(images), batch_size):
            pixels = to_tensor(images[start : start + batch_size], SIZE)
            for name, logits in self.model(pixels).items():
                labels = self.model.classes[name]
                found[name] += [labels[i] for i in logits.argmax(1).tolist()]
        return Look(**found)

    def objects(self, images: Sequence[Image.Image]) -> list[str]:
        """The object that each picture shows."""
        return self.look(images).object


def read_fp32(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a file, those of floating type in fp32; `WorldError` where it is missing."""
    if not path.is_file():
        raise WorldError(f"expected weights at {path}; run make train-world or reinstall")
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }


def load_judge_b(folder: Path = DATA / "judge_b") -> JudgeB:
    """Loads the bundled classifier in fp32."""
    state = read_fp32(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    model = SceneClassifier(config["classes"], config["width"])
    model.load_state_dict(state)
    return JudgeB(model)


def load_judge_a(folder: Path = DATA / "judge_a") -> ClipModel:
    """Loads the bundled open_clip judge in fp32."""
    state = read_fp32(folder / "model.safetensors")
    model = open_clip.CLIP(**json.loads((folder / "config.json").read_text()))
    model.load_state_dict(state)
    tokenizer = CLIPTokenizer.from_pretrained(folder.parent / "pipeline" / "tokenizer")
    return wrap_clip(model, tokenizer)


def wrap_clip(model: open_clip.CLIP, tokenizer: CLIPTokenizer) -> ClipModel:
    """Gives an open_clip model the world's transform and tokenizer."""
    tokenize = partial(padded_ids, tokenizer, context_length=model.context_length)
    return ClipModel(model, lambda image: to_tensor([image], SIZE)[0], tokenize, batch_size=128)
