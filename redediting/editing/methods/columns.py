"""Columns of an editing problem from encoded prompts: which tokens, and with what weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from redediting.concepts.pairs import PromptPair, RetainPrompt
from redediting.text import Role, TextStates, align, encode, find_phrase, roles

Shares = Mapping[Role, float]
_GROUPS = {Role.PREFIX: Role.TAIL, Role.TRIGGER: Role.TAIL}  # words count together


def shares(*, words: float, eos: float, pads: float) -> Shares:
    """Weight of each role in one prompt; BOS has none."""
    return {
        Role.BOS: 0.0,
        Role.PREFIX: words,
        Role.TRIGGER: words,
        Role.TAIL: words,
        Role.EOS: eos,
        Role.PAD: pads,
    }


def token_weights(found: Sequence[Role], share: Shares) -> Tensor:
    """Weights of one prompt's tokens, fp64: a role group's share is divided among its tokens.

    The groups are words (before, in and after the trigger), end and pads.
    """
    groups = [_GROUPS.get(role, role) for role in found]
    return torch.tensor(
        [share[role] / groups.count(group) for role, group in zip(found, groups, strict=True)],
        dtype=torch.float64,
    )


def aligned_states(
    pipeline: DiffusionPipeline, pairs: Sequence[PromptPair]
) -> tuple[Tensor, Tensor, list[tuple[Role, ...]]]:
    """Aligned source and target states of all pairs, fp64, (d, n) each, and each pair's roles."""
    source = encode(pipeline, [pair.source for pair in pairs])
    target = encode(pipeline, [pair.target for pair in pairs])
    keys, targets, found = [], [], []
    for row, pair in enumerate(pairs):
        aligned = align(
            source,
            row,
            find_phrase(pipeline.tokenizer, pair.source, pair.source_phrase),
            target,
            row,
            find_phrase(pipeline.tokenizer, pair.target, pair.target_phrase),
        )
        keys.append(source.states[row, list(aligned.source)])
        targets.append(target.states[row, list(aligned.target)])
        found.append(aligned.roles)
    return torch.cat(keys).T.double(), torch.cat(targets).T.double(), found


def pair_columns(
    pipeline: DiffusionPipeline, pairs: Sequence[PromptPair], share: Shares
) -> tuple[Tensor, Tensor, Tensor]:
    """``C``, ``C*`` (d, n) and ``s`` (n,) of prompt pairs, edited from the trigger onwards.

    Each pair has its own weight in total where all of its roles occur.
    """
    keys, targets, found = aligned_states(pipeline, pairs)
    weights = [
        pair.weight * token_weights(tokens, share)
        for pair, tokens in zip(pairs, found, strict=True)
    ]
    return keys, targets, torch.cat(weights)


def retain_columns(
    pipeline: DiffusionPipeline,
    prompts: Sequence[RetainPrompt],
    share: Shares,
    *,
    head_share: float,
) -> tuple[Tensor, Tensor]:
    """``R`` (d, N) and ``w`` (N,) of retained prompts, all tokens but BOS; all weights sum to one.

    Args:
        pipeline: encodes the prompts.
        prompts: at least one.
        share: weight of each role in a prompt.
        head_share: share of all weight that prompts of role ``head`` get, in 0…1.
    """
    states = encode(pipeline, [prompt.prompt for prompt in prompts])
    totals = _prompt_weights(prompts, head_share)
    weights = torch.stack(
        [total * token_weights(roles(states, row), share) for row, total in enumerate(totals)]
    )
    return content_columns(states), weights[:, 1:].flatten()


def content_columns(states: TextStates) -> Tensor:
    """Every state but BOS as a column, fp64, shape ``(d, n·(L-1))``."""
    return states.states[:, 1:].flatten(0, 1).T.double()


def _prompt_weights(prompts: Sequence[RetainPrompt], head_share: float) -> list[float]:
    heads = sum(prompt.weight for prompt in prompts if prompt.role == "head")
    others = sum(prompt.weight for prompt in prompts if prompt.role != "head")
    if heads == 0 or others == 0:
        return [prompt.weight / (heads + others) for prompt in prompts]
    return [
        prompt.weight
        * (head_share / heads if prompt.role == "head" else (1 - head_share) / others)
        for prompt in prompts
    ]
