"""Text projections: the matrices of a denoiser that read text states.

A transformer's text enters by one matrix, so the closed form is the same with one layer; its bias
stays, since ``W'c + b`` is to be ``Wc* + b``. Which names they have is the layout's to say
(`redediting.models.layouts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Kind = Literal["key", "value", "context", "pooled"]

_CROSS: dict[str, Kind] = {"to_k": "key", "to_v": "value"}


@dataclass(frozen=True)
class Projection:
    """A matrix ``W`` of shape ``(m, d)`` that reads text.

    Kinds: cross-attention ``key`` or ``value`` of text width d; ``context``, the one matrix by
    which all tokens enter a transformer; ``pooled``, which reads one vector a prompt, beside other
    things in its last columns.
    """

    name: str  # key in the denoiser's state dict, with ``.weight``
    kind: Kind
    module: nn.Linear


def cross_attention(denoiser: nn.Module) -> list[Projection]:
    """Every ``attn2.to_k`` and ``attn2.to_v``, in the order of the modules."""
    found = []
    for name, module in linear_layers(denoiser).items():
        parent, leaf = ("", "", *name.split("."))[-2:]
        if parent == "attn2" and leaf in _CROSS:
            found.append(Projection(f"{name}.weight", _CROSS[leaf], module))
    return found


def named_projections(denoiser: nn.Module, names: Iterable[str], kind: Kind) -> list[Projection]:
    """Those of the named linear layers that the denoiser has."""
    linear = linear_layers(denoiser)
    return [Projection(f"{name}.weight", kind, linear[name]) for name in names if name in linear]


def projection_weights(projections: Iterable[Projection]) -> dict[str, Tensor]:
    """The matrices by name, detached; they share memory with the model."""
    return {projection.name: projection.module.weight.detach() for projection in projections}


def linear_layers(denoiser: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers by name, in the order of the modules."""
    modules = denoiser.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}
