"""Share of a model's cross-attention on words, end token and pads."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from redediting.models.model import Model
from redediting.text.attention import recording
from redediting.text.encoding import TokenRole, roles


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
