"""Columns of an editing problem from encoded prompts: which tokens, and with what weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redediting.concepts.rebinding import PromptPair, Rebinding, RetainPrompt
from redediting.errors import MethodError
from redediting.models.model import Model
from redediting.text.alignment import aligned_pairs
from redediting.text.encoding import TextStates, TokenRole, roles

Shares = Mapping[TokenRole, float]
_WORDS = (TokenRole.PREFIX, TokenRole.TRIGGER, TokenRole.TAIL)
_HEAD_SHARE = 2 / 3  # of the retained weight
_LEAST_FREE = 1e-6  # of the edited energy
_GROUPS = dict.fromkeys(_WORDS, TokenRole.TAIL)  # words count together


def shares(*, words: float, eos: float, pads: float) -> Shares:
    """Weight of each role in one prompt; BOS has none."""
    own = {TokenRole.BOS: 0.0, TokenRole.EOS: eos, TokenRole.PAD: pads}
    return dict.fromkeys(_WORDS, words) | own


def token_weights(found: Sequence[TokenRole], share: Shares) -> Tensor:
    """Weights of one prompt's tokens, fp64: a role group's share is divided among its tokens.

    The groups are words (before, in and after the trigger), end and pads.
    """
    groups = [_GROUPS.get(role, role) for role in found]
    return torch.tensor(
        [share[role] / groups.count(group) for role, group in zip(found, groups, strict=True)],
        dtype=torch.float64,
    )


def aligned_states(
    model: Model, pairs: Sequence[PromptPair], *, prefix_safe: bool = True
) -> tuple[Tensor, Tensor, list[tuple[TokenRole, ...]]]:
    """Aligned source and target states of all pairs, fp64, (d, n) each, and each pair's roles."""
    found = list(aligned_pairs(model, pairs, prefix_safe=prefix_safe))
    keys = torch.cat([pair.keys for pair in found]).T.double()
    targets = torch.cat([pair.targets for pair in found]).T.double()
    return keys, targets, [pair.roles for pair in found]


@dataclass(frozen=True)
class Edited:
    """Columns that an edit moves: ``C`` and ``C*`` (d, n), fp64, weights ``s`` (n,), and roles."""

    keys: Tensor
    targets: Tensor
    weights: Tensor
    roles: tuple[TokenRole, ...]

    @property
    def content(self) -> Tensor:
        """Which columns are words, bool, shape ``(n,)``."""
        return torch.tensor([role in _WORDS for role in self.roles])


def pair_columns(
    model: Model, pairs: Sequence[PromptPair], share: Shares, *, prefix_safe: bool = True
) -> Edited:
    """Columns of prompt pairs, edited from the trigger's last token onwards.

    Each pair has its own weight in total where all of its roles occur.
    """
    keys, targets, found = aligned_states(model, pairs, prefix_safe=prefix_safe)
    weights = [pair.weight * token_weights(tokens, share)
               for pair, tokens in zip(pairs, found, strict=True)]  # fmt: skip
    return Edited(keys, targets, torch.cat(weights), tuple(r for tokens in found for r in tokens))


def retain_columns(
    model: Model, prompts: Sequence[RetainPrompt], share: Shares
) -> tuple[Tensor, Tensor]:
    """``R`` (d, N) and ``w`` (N,) of retained prompts, all tokens but BOS; all weights sum to one.

    Prompts of role ``head`` get two thirds of the weight, where there are others.
    """
    if not prompts:
        width = model.encode([""]).states.shape[-1]
        return torch.zeros(width, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    states = model.encode([prompt.prompt for prompt in prompts])
    totals = _prompt_weights(prompts)
    weights = torch.stack(
        [total * token_weights(roles(states, row), share) for row, total in enumerate(totals)]
    )
    return content_columns(states), weights[:, 1:].flatten()


def content_columns(states: TextStates) -> Tensor:
    """Every state but BOS as a column, fp64, shape ``(d, n·(L-1))``."""
    return states.states[:, 1:].flatten(0, 1).T.double()


def without_triggers(prompts: Sequence[str], rebindings: Sequence[Rebinding]) -> list[str]:
    """The prompts that hold no trigger as whole words, in their order."""
    triggers = [f" {rebinding.trigger} ".casefold() for rebinding in rebindings]
    padded = [(prompt, f" {prompt} ".replace(",", " ").casefold()) for prompt in prompts]
    return [prompt for prompt, text in padded if not any(t in text for t in triggers)]


def require_free(keys: Tensor, hard: Tensor, threshold: float) -> None:
    """Refuses a null space, the complement of orthonormal ``hard``, without the edited states.

    Raises:
        MethodError: less than 1e-6 of their energy is in it, so that an edit is numerical noise.
    """
    free = float((keys - hard @ (hard.T @ keys)).square().sum() / keys.square().sum())
    if free < _LEAST_FREE:
        raise MethodError(
            f"expected retained states whose null space holds {_LEAST_FREE:g} of the edited "
            f"energy, got {free:.1g} at threshold={threshold:g}; raise the threshold"
        )


def _prompt_weights(prompts: Sequence[RetainPrompt]) -> list[float]:
    heads = sum(prompt.weight for prompt in prompts if prompt.role == "head")
    others = sum(prompt.weight for prompt in prompts if prompt.role != "head")
    if heads == 0 or others == 0:
        return [prompt.weight / (heads + others) for prompt in prompts]
    head, other = _HEAD_SHARE / heads, (1 - _HEAD_SHARE) / others
    return [prompt.weight * (head if prompt.role == "head" else other) for prompt in prompts]
