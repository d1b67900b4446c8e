"""Text states that are kept between edits: a prompt is encoded once for an unchanged encoder.

Edits of many pairs share their ordinary captions, and variants of a method share every prompt. The
cache asks before each look-up whether the encoders are still those that it was filled by: it
compares the parameters' version counters, which every in-place operation of torch raises, and a
sample of their values, which also shows a write through ``.data``. Tensors made in inference mode
have no such counter; for them there is the sample alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

ROOM = 512 * 2**20  # bytes kept for one model; the states used longest ago go first
_SAMPLED = 32  # values of each parameter


class StateCache:
    """States ``(L, d)`` of prompts, least recently used first."""

    def __init__(self) -> None:
        self.rows: dict[str, Tensor] = {}
        self._key: Hashable = None

    def valid_for(self, key: Hashable) -> StateCache:
        """The cache itself, emptied where it was filled under another key."""
        if key != self._key:
            self._key = key
            self.rows.clear()
        return self

    def get(self, prompt: str) -> Tensor | None:
        """The states of a prompt, if they are kept."""
        row = self.rows.pop(prompt, None)
        if row is not None:
            self.rows[prompt] = row  # now the most recently used
        return row

    def put(self, prompt: str, row: Tensor) -> None:
        """Keeps states, dropping others where there is no room."""
        self.rows[prompt] = row.clone()
        while len(self.rows) * row.nbytes > ROOM and len(self.rows) > 1:
            del self.rows[next(iter(self.rows))]


def state_key(
    encoders: Iterable[nn.Module], tokenizers: Iterable[PreTrainedTokenizerBase] = ()
) -> Hashable:
    """What the states of some encoders depend on, cheap enough to be asked for every time."""
    found: list[Hashable] = [(id(one), len(one), one.pad_token_id) for one in tokenizers]
    for encoder in encoders:
        for parameter in encoder.parameters():
            flat = parameter.detach().flatten()
            sample = flat[:: max(1, len(flat) // _SAMPLED)]
            version = 0 if parameter.is_inference() else parameter._version
            found.append((id(parameter), version, str(parameter.device),
                          float(sample.double().sum())))  # fmt: skip
    return tuple(found)
