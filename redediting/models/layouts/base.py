"""What a layout says of an architecture: denoiser, matrices that read text, text as inputs."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.models.projections import Projection, cross_attention, named_projections


class Layout(ABC):
    """An architecture; a subclass states what differs.

    Where ``takes_states`` a drawing takes token states alone, so that every prompt is encoded
    once, before the first image.
    """

    name: ClassVar[str]  # in messages
    pipelines: ClassVar[tuple[str, ...]]  # names of the diffusers classes that it covers
    denoiser: ClassVar[Literal["unet", "transformer"]] = "unet"  # the component that draws
    context: ClassVar[tuple[str, ...]] = ()  # layers by which all tokens enter, if not attn2
    pooled: ClassVar[tuple[str, ...]] = ()  # linear layers that read the pooled text
    pooled_output: ClassVar[int | None] = None  # its place in what ``encode_prompt`` returns
    takes_states: ClassVar[bool] = False
    # further arguments of ``encode_prompt`` and of a drawing
    encode_options: ClassVar[Mapping[str, Any]] = {"do_classifier_free_guidance": False}
    draw_options: ClassVar[Mapping[str, Any]] = {}

    def token_projections(self, denoiser: nn.Module) -> list[Projection]:
        """The matrices that read token states, in the order of the modules: some, of one width."""
        found = named_projections(denoiser, self.context, "context")
        found = found or ([] if self.context else cross_attention(denoiser))
        widths = sorted({projection.module.in_features for projection in found})
        if not widths:
            wanted = " or ".join(self.context) or "cross-attention (attn2.to_k and attn2.to_v)"
            raise ModelError(
                f"expected {wanted}, got {type(denoiser).__name__} without; choose a "
                "text-conditioned model"
            )
        if len(widths) > 1:
            raise ModelError(f"expected one text width, got {widths}; choose a simpler model")
        return found

    def pooled_projections(self, denoiser: nn.Module) -> list[Projection]:
        """The matrices that read the pooled text, if any."""
        return named_projections(denoiser, self.pooled, "pooled")

    def inputs(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Prompts as a drawing takes them where it encodes them itself."""
        return {"prompt": list(prompts), **self.draw_options}

    def state_inputs(self, states: Tensor, null: Tensor | None) -> dict[str, Any]:
        """Token states ``(n, L, d)`` and the empty prompt's ``(L, d)`` as a drawing takes them."""
        negative = None if null is None else null.expand(len(states), -1, -1)
        return {"prompt_embeds": states, "negative_prompt_embeds": negative}
