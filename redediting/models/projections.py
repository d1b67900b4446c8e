"""Which matrices of a model read text states.

| layout | reads tokens, edited | reads the pooled text, edited | reads what another has read |
|---|---|---|---|
| SD 1, SD 2 | UNet ``attn2.to_k``, ``to_v`` (32, d = 768 or 1024) | | |
| SDXL | UNet ``attn2.to_k``, ``to_v`` (140, d = 2048) | ``add_embedding.linear_1`` | |
| SD 3 | ``context_embedder`` (d = 4096) | ``text_embedder.linear_1`` | |
| FLUX | ``context_embedder`` (d = 4096) | ``text_embedder.linear_1`` | |
| PixArt | ``caption_projection.linear_1`` (d = 4096) | | ``attn2.to_k``, ``to_v`` |

A transformer's text enters by one matrix, so the closed form is the same with one layer; its bias
stays, since ``W'c + b`` is to be ``Wc* + b``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.fingerprints import fingerprint

Kind = Literal["key", "value", "context", "pooled"]

_CROSS: dict[str, Kind] = {"to_k": "key", "to_v": "value"}
_CONTEXT = ("context_embedder", "caption_projection.linear_1")
_POOLED = ("add_embedding.linear_1", "time_text_embed.text_embedder.linear_1")


@dataclass(frozen=True)
class Projection:
    """A matrix ``W`` of shape ``(m, d)`` that reads text.

    Attributes:
        name: key in the denoiser's state dict, with ``.weight``.
        kind: cross-attention ``key`` or ``value`` of text width d; ``context``, the one matrix by
            which all tokens enter a transformer; ``pooled``, which reads one vector a prompt,
            beside other things in its last columns.
        module: the layer that holds it.
    """

    name: str
    kind: Kind
    module: nn.Linear


def find_projections(denoiser: nn.Module) -> list[Projection]:
    """The matrices of a UNet or transformer that read token states, in the order of its modules.

    Raises:
        ModelError: there are none, or they read states of different widths.
    """
    linear = _linear_layers(denoiser)
    found = [
        Projection(f"{name}.weight", "context", linear[name])
        for name in _CONTEXT
        if name in linear
    ] or _cross_attention(linear)
    if not found:
        raise ModelError(
            "expected cross-attention (attn2.to_k and attn2.to_v) or a text projection "
            f"({' or '.join(_CONTEXT)}), got {type(denoiser).__name__} without; choose a "
            "text-conditioned model"
        )
    widths = {projection.module.in_features for projection in found}
    if len(widths) > 1:
        raise ModelError(f"expected one text width, got {sorted(widths)}; choose a simpler model")
    return found


def pooled_projections(denoiser: nn.Module) -> list[Projection]:
    """The matrices that read the pooled text, if any."""
    linear = _linear_layers(denoiser)
    return [
        Projection(f"{name}.weight", "pooled", linear[name]) for name in _POOLED if name in linear
    ]


def list_projections(denoiser: nn.Module) -> list[Projection]:
    """Everything that reads text: tokens first, then pooled, then what reads others' output.

    Raises:
        ModelError: there is none, or it reads states of different widths.
    """
    found = [*find_projections(denoiser), *pooled_projections(denoiser)]
    names = {projection.name for projection in found}
    further = _cross_attention(_linear_layers(denoiser))
    return [*found, *(projection for projection in further if projection.name not in names)]


def get_denoiser(pipeline: DiffusionPipeline) -> nn.Module:
    """The UNet or transformer of a pipeline.

    Raises:
        ModelError: it has neither.
    """
    for name in ("unet", "transformer"):
        module = getattr(pipeline, name, None)
        if isinstance(module, nn.Module):
            return module
    raise ModelError(
        f"expected a pipeline with a UNet or a transformer, got {type(pipeline).__name__} "
        "without; choose a Stable Diffusion model"
    )


def pipeline_projections(pipeline: DiffusionPipeline) -> list[Projection]:
    """The matrices of a pipeline's denoiser that read token states.

    Raises:
        ModelError: the pipeline has no denoiser, or that reads no text.
    """
    return find_projections(get_denoiser(pipeline))


def projection_weights(projections: Sequence[Projection]) -> dict[str, Tensor]:
    """The matrices by name, detached; they share memory with the model."""
    return {projection.name: projection.module.weight.detach() for projection in projections}


def fingerprint_projections(projections: Sequence[Projection]) -> str:
    """SHA-256 of the matrices read as fp32, so that an exact change of dtype does not matter."""
    weights = projection_weights(projections)
    return fingerprint({name: weight.cpu().float() for name, weight in weights.items()})


def _linear_layers(denoiser: nn.Module) -> dict[str, nn.Linear]:
    modules = denoiser.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


def _cross_attention(linear: dict[str, nn.Linear]) -> list[Projection]:
    found = []
    for name, module in linear.items():
        parent, leaf = ("", "", *name.split("."))[-2:]
        if parent == "attn2" and leaf in _CROSS:
            found.append(Projection(f"{name}.weight", _CROSS[leaf], module))
    return found
