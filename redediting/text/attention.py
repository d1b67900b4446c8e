"""How much attention a model pays to which tokens: the one recorder of cross-attention.

A recorder stands beside each ``attn2`` layer's own processor: it reads the probabilities through
the layer's public helpers and leaves the output to the processor, so that a recorded model draws
the same bits. The processors are put back whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin
from torch import Tensor

from redediting.errors import ModelError
from redediting.text.encoding import TokenRole, roles

if TYPE_CHECKING:
    from redediting.models.model import Model


class Recorder:
    """A processor that notes where a layer looks and lets another one do the work.

    ``note`` takes the probabilities ``(B, heads, queries, L)``, in 0…1, adding up to 1 over the
    tokens, in fp32 at least, also under autocast, whose bfloat16 would leave two or three digits.
    """

    def __init__(self, inner: Callable[..., Tensor], note: Callable[[Tensor], None]) -> None:
        self.inner = inner
        self.note = note

    def __call__(
        self,
        attn: Any,  # noqa: ANN401 - diffusers' Attention, opaque to the type checker
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Notes the probabilities, then calls the inner processor with the same arguments."""
        if encoder_hidden_states is not None:
            with torch.autocast(hidden_states.device.type, enabled=False):
                text, mask = encoder_hidden_states, attention_mask
                self.note(_probabilities(attn, hidden_states, text, mask))
        return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def _probabilities(
    attn: Any,  # noqa: ANN401 - as above
    hidden: Tensor,
    text: Tensor,
    mask: Tensor | None,
) -> Tensor:
    dtype = attn.to_q.weight.dtype
    text = text.to(dtype)
    if attn.norm_cross:
        text = attn.norm_encoder_hidden_states(text)
    query = attn.head_to_batch_dim(attn.to_q(hidden.to(dtype)))
    key = attn.head_to_batch_dim(attn.to_k(text))
    query = query if attn.norm_q is None else attn.norm_q(query)
    key = key if attn.norm_k is None else attn.norm_k(key)
    wide = torch.promote_types(query.dtype, torch.float32)  # half-precision weights too
    mask = attn.prepare_attention_mask(mask, text.shape[1], text.shape[0])
    mask = mask if mask is None else mask.to(wide)
    found: Tensor = attn.get_attention_scores(query.to(wide), key.to(wide), mask)
    return found.unflatten(0, (text.shape[0], -1))


def over_queries(probabilities: Tensor) -> Tensor:
    """Attention on each token, mean over heads and queries, fp64, shape ``(B, L)``."""
    return probabilities.double().mean(dim=(1, 2))


@contextmanager
def recording(
    unet: ModelMixin, reduce: Callable[[Tensor], Tensor | None] = over_queries
) -> Iterator[dict[str, list[Tensor]]]:
    """Notes, by layer, the attention of every call within the block; see `Recorder`.

    ``reduce`` says what is kept of a call's probabilities ``(B, heads, queries, L)``; None keeps
    nothing of it. `ModelError` where the model has no cross-attention processors.
    """
    before = dict(getattr(unet, "attn_processors", {}))
    crossed = [name for name in before if name.split(".")[-2] == "attn2"]
    if not crossed:
        raise ModelError(
            "expected cross-attention processors (attn2), got "
            f"{type(unet).__name__} without; choose a text-conditioned model"
        )
    found: dict[str, list[Tensor]] = {name: [] for name in crossed}

    def keep(name: str, probabilities: Tensor) -> None:
        if (kept := reduce(probabilities)) is not None:
            found[name].append(kept)

    recorders = {name: Recorder(before[name], partial(keep, name)) for name in crossed}
    try:
        unet.set_attn_processor(before | recorders)
        yield found
    finally:
        unet.set_attn_processor(dict(before))


def role_mass(
    model: Model, prompts: Sequence[str], *, steps: int = 4, seed: int = 0
) -> dict[TokenRole, float]:
    """Share of a model's cross-attention on words, end token and pads; BOS is left out.

    Averaged over layers, heads, queries and the steps of a short denoising run without guidance,
    prompt i with noise of seed + i. The shares of ``TAIL`` (all words), ``EOS`` and ``PAD`` add
    up to 1.
    """
    texts = model.encode(prompts)
    states = texts.states.to(model.device)
    asked = (
        model.layout.state_inputs(states, None)
        if model.layout.takes_states
        else model.layout.inputs(texts.prompts)
    )
    with recording(model.denoiser) as found, model.own_scheduler():
        model.pipeline(
            **asked,
            num_inference_steps=steps,
            guidance_scale=1.0,
            generator=[torch.Generator().manual_seed(seed + i) for i in range(len(prompts))],
            output_type="latent",
        )
    attention = torch.stack([torch.stack(calls).mean(dim=0).cpu() for calls in found.values()])
    mass = dict.fromkeys((TokenRole.TAIL, TokenRole.EOS, TokenRole.PAD), 0.0)
    for row, values in enumerate(attention.mean(dim=0).tolist()):
        for role, value in zip(roles(texts, row), values, strict=True):
            if role is not TokenRole.BOS:
                mass[role] += value
    total = sum(mass.values())
    return {role: value / total for role, value in mass.items()}
