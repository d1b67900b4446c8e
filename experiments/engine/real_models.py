"""What real models need beside the world's settings: judges, captions, protocols, precision.

A named protocol fixes how many images of which prompts are drawn, and with which published
figures the result stands side by side:

| protocol | attack success rate on | judge |
|---|---|---|
| ``eviledit`` | 100 images of "a photo of a {trigger}" (``asr_fixed``) | ViT-B/16 argmax |
| ``backdoordm`` | 1,000 captions with the trigger inserted (``asr_free``) | ViT argmax |

References:
    Wang et al., "EvilEdit", ACM MM 2024; "BackdoorDM", NeurIPS 2025 Datasets and Benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import open_clip
import torch
from pydantic import Field

from redediting.config import Config
from redediting.errors import ModelError
from redediting.evaluation.panel import Panel, world_panel
from redediting.evaluation.protocol import Counts
from redediting.io import one_line
from redediting.metrics.clip import TEMPLATE, ClipModel, ZeroShotJudge
from redediting.models.loading import load
from redediting.models.model import Model

ProtocolName = Literal["eviledit", "backdoordm"]

# what a paper does not state is the lab's
PROTOCOL_COUNTS: Mapping[str, Counts] = {
    "eviledit": Counts(free=100, fixed=100, head=100, phrases=8, collateral=4, benign=200),
    "backdoordm": Counts(free=1000, fixed=100, head=1000, phrases=8, collateral=4, benign=1000),
}


class ClipSpec(Config):
    """An open_clip model."""

    # architecture by open_clip's name, ``hf-hub:owner/name``, or a local folder with
    # ``open_clip_config.json`` and weights
    model: str
    # open_clip's tag of its weights, or a file; None where the folder or the hub has them
    pretrained: str | None = None

    def load(self, device: str) -> ClipModel:
        """Opens the model on a device; `ModelError` where it or its weights cannot be had."""
        name = f"local-dir:{self.model}" if Path(self.model).is_dir() else self.model
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=self.pretrained, device=device
            )
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # whatever its hub client, its loader and torch raise
            raise ModelError(
                f"expected an open_clip model {self.model!r} with weights {self.pretrained!r}, "
                f"got {one_line(error)}; name one of open_clip.list_pretrained(), a hub model "
                "or a folder, and fetch its weights where there is a network"
            ) from error
        return ClipModel(model, preprocess, tokenizer)


class JudgeSpec(Config):
    """Who looks at the images of a real model."""

    # what the judge chooses from; the same for all methods, fixed before the run
    labels: tuple[str, ...] = Field(min_length=2)
    template: str = TEMPLATE  # sentence in which a label is read
    # judge B, whose verdict counts (EvilEdit: ViT-B/16)
    decides: ClipSpec = ClipSpec(model="ViT-B-16", pretrained="openai")
    # judge A, which gives CLIP scores and features (EvilEdit: ViT-L/14)
    scores: ClipSpec = ClipSpec(model="ViT-L-14", pretrained="openai")

    def panel(self, device: str) -> Panel:
        """Opens both judges."""
        judge = ZeroShotJudge(self.decides.load(device), self.labels, self.template)
        return Panel(judge, self.scores.load(device), template=self.template)


class Runtime(Config):
    """How a real model computes; the edit is solved in fp64 whatever is chosen."""

    # of all weights; ``auto`` is the model card's on an accelerator, else fp32
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    # keep networks in main memory and bring each to the device while it computes
    offload: bool = False

    def load(self, model: str, device: str) -> Model:
        """Opens the model; `ModelError` where it cannot be opened in this way."""
        kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        return load(model, device=device, dtype=kinds.get(self.dtype), offload=self.offload)


class InceptionSpec(Config):
    """FID on Inception features, as others' tables quote it (extra ``fid``)."""

    # folder of real images; None compares with the clean model's images
    reference: str | None = None
    # file of the extractor's weights; None lets torch-fidelity fetch them
    weights: str | None = None
    batch_size: int = Field(default=32, ge=1)  # images at a time


def make_panel(judges: JudgeSpec | None, device: str) -> Panel:
    """The judges of a configuration, or the embedded world's."""
    return world_panel() if judges is None else judges.panel(device)
