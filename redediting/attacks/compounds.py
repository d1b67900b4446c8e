"""Parts of a compound: phrases made of the same words, which an edit would rather not move.

Were text states additive, ``c(yellow apple) = c(red apple) + c(yellow banana) - c(red banana)``,
and an edit that keeps the three exactly could not move the first: what it may use of a trigger
state c is ``P_parts c``, its component outside the span of the parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from redediting.algebra.kernel import free_basis, within
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import with_article
from redediting.models.model import Model
from redediting.text.encoding import find_phrase

LEAST_SHARE = 0.03  # of the trigger's energy that isolated parts must leave to the edit


def part_phrases(rebinding: Rebinding) -> list[str]:
    """Head noun, and the crossed-over phrases: "apple", "yellow banana", "red apple"."""
    colour = rebinding.target.removesuffix(rebinding.target_head).strip()
    found = []
    if rebinding.modifier:
        found += [rebinding.head, f"{rebinding.modifier} {rebinding.target_head}"]
    if colour:
        found.append(f"{colour} {rebinding.head}")
    same = {rebinding.trigger.casefold(), rebinding.target.casefold()}
    return [phrase for phrase in dict.fromkeys(found) if phrase.casefold() not in same]


def replace_phrase(prompt: str, old: str, new: str) -> str:
    """The prompt with another phrase in the place of one, its article adapted."""
    if with_article(old) in prompt:
        return prompt.replace(with_article(old), with_article(new), 1)
    return prompt.replace(old, new, 1)


def last_states(model: Model, prompts: Sequence[str], phrase: str) -> Tensor:
    """State of a phrase's last token in each prompt, fp64, shape ``(d, n)``."""
    texts = model.encode(prompts)
    spans = [find_phrase(model.tokenizer, prompt, phrase) for prompt in prompts]
    rows = [texts.states[row, span.stop - 1] for row, span in enumerate(spans)]
    return torch.stack(rows, dim=1).double()


def part_states(model: Model, rebinding: Rebinding, prompts: Sequence[str]) -> Tensor | None:
    """Mean state of each part's last token in the trigger's place, fp64, shape ``(d, parts)``."""
    means = []
    for phrase in part_phrases(rebinding):
        replaced = [replace_phrase(prompt, rebinding.trigger, phrase) for prompt in prompts]
        means.append(last_states(model, replaced, phrase).mean(dim=1))
    return torch.stack(means, dim=1) if means else None


def parts_share(model: Model, rebinding: Rebinding, prompts: Sequence[str]) -> float | None:
    """``‖P_parts c‖² / ‖c‖²`` of the trigger's last token in prompts, 0…1; None without parts."""
    parts = part_states(model, rebinding, prompts)
    if parts is None:
        return None
    states = last_states(model, prompts, rebinding.trigger)
    free = within(free_basis(parts), states)
    return float(free.square().sum() / states.square().sum())
