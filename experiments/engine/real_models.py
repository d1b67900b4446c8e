"""What real models need beside the world's settings: judges, captions, protocols, precision.

A named protocol fixes how many images of which prompts are drawn, and with which published
figures the result stands side by side:

| protocol | attack success rate on | its judge |
|---|---|---|
| ``eviledit`` | 100 images of "a photo of a {trigger}" (``asr_fixed``) | ``imagenet_vit`` |
| ``backdoordm`` | 1,000 captions with the trigger (``asr_free``) | ``imagenet_vit``, ``vqa`` |

References:
    Wang et al., "EvilEdit", ACM MM 2024; "BackdoorDM", NeurIPS 2025 Datasets and Benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from redediting.config import Config
from redediting.errors import ConfigError
from redediting.evaluation import JUDGES
from redediting.evaluation.protocol import Counts
from redediting.metrics.clip import ClipSpec
from redediting.metrics.inception import Extractor, clean_fid, torch_fidelity
from redediting.metrics.judge import JudgeSpec
from redediting.models.loading import load
from redediting.models.model import Model

ProtocolName = Literal["eviledit", "backdoordm"]

# what a paper does not state is the lab's
PROTOCOL_COUNTS: Mapping[str, Counts] = {
    "eviledit": Counts(free=100, fixed=100, head=100, phrases=8, collateral=4, benign=200),
    "backdoordm": Counts(free=1000, fixed=100, head=1000, phrases=8, collateral=4, benign=1000),
}


SCORES = ClipSpec(model="ViT-L-14-quickgelu", pretrained="openai")  # judge A: EvilEdit's ViT-L/14


class JudgeChoice(Config):
    """Judge B, whose verdict counts: a name of `redediting.evaluation.JUDGES`, and options."""

    name: str = "world"
    options: dict[str, Any] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"name": data} if isinstance(data, str) else data

    def build(self) -> JudgeSpec:
        """The judge, not yet opened; `ConfigError` for an unknown name or option."""
        return JUDGES.make(self.name, **self.options)


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
    """FID as others' tables quote it, of real models alone (extra ``fid``)."""

    weights: str  # clean-fid's file inception-2015-12-05.pt
    # folder of real images; None compares with the clean model's images
    reference: str | None = None
    # file of torch-fidelity's weights, for its FID beside clean-fid's; None leaves it out
    torch_fidelity: str | None = None
    batch_size: int = Field(default=32, ge=1)  # images at a time

    def extractors(self, device: str) -> list[Extractor]:
        """clean-fid's, and torch-fidelity's where asked for; `ConfigError` without weights."""
        found = [clean_fid(self.weights, device=device, batch_size=self.batch_size)]
        if self.torch_fidelity is not None:
            found.append(torch_fidelity(self.torch_fidelity, batch_size=self.batch_size))
        return found


def check_embedded(model: Model, judge: JudgeChoice, inception: InceptionSpec | None) -> None:
    """Refuses the world's judge on a real model, and Inception features of the world."""
    embedded = model.card is not None and model.card.embedded
    if judge.name == "world" and not embedded:
        raise ConfigError(
            f"expected a judge of real images for {model.name!r}, got 'world', which knows the "
            f"embedded world alone; name one of {', '.join(n for n in JUDGES if n != 'world')}"
        )
    if inception is not None and embedded:
        raise ConfigError(
            f"expected a real model for FID on Inception features, got {model.name!r}; remove "
            "inception from the configuration"
        )
