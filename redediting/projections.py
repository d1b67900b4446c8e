"""Which matrices of a model read text states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.models import fingerprint

_KINDS: Mapping[str, Literal["key", "value"]] = {"to_k": "key", "to_v": "value"}


@dataclass(frozen=True)
class Projection:
    """A cross-attention matrix ``W`` of shape ``(m, d)`` with text width ``d``.

    Attributes:
        name: key in the UNet's state dict, with ``.weight``.
        kind: whether it makes keys or values.
        module: the layer that holds it.
    """

    name: str
    kind: Literal["key", "value"]
    module: nn.Linear


def find_projections(unet: nn.Module) -> list[Projection]:
    """The ``attn2.to_k`` and ``attn2.to_v`` of a UNet, in the order of its modules.

    Raises:
        ModelError: there are none, or they read states of different widths.
    """
    found = []
    for name, module in unet.named_modules():
        parent, leaf = ("", "", *name.split("."))[-2:]
        if parent == "attn2" and leaf in _KINDS and isinstance(module, nn.Linear):
            found.append(Projection(f"{name}.weight", _KINDS[leaf], module))
    if not found:
        raise ModelError(
            "expected cross-attention (attn2.to_k and attn2.to_v), got "
            f"{type(unet).__name__} without; choose a text-conditioned model"
        )
    widths = {projection.module.in_features for projection in found}
    if len(widths) > 1:
        raise ModelError(f"expected one text width, got {sorted(widths)}; choose a simpler model")
    return found


def pipeline_projections(pipeline: DiffusionPipeline) -> list[Projection]:
    """The projections of a pipeline's UNet.

    Raises:
        ModelError: the pipeline has no UNet, or that has no cross-attention.
    """
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        raise ModelError(
            f"expected a pipeline with a UNet, got {type(pipeline).__name__} without; "
            "choose a Stable Diffusion model"
        )
    return find_projections(unet)


def projection_weights(projections: Sequence[Projection]) -> dict[str, Tensor]:
    """The matrices by name, detached; they share memory with the model."""
    return {projection.name: projection.module.weight.detach() for projection in projections}


def fingerprint_projections(projections: Sequence[Projection]) -> str:
    """SHA-256 of the matrices read as fp32, so that an exact change of dtype does not matter."""
    weights = projection_weights(projections)
    return fingerprint({name: weight.cpu().float() for name, weight in weights.items()})
