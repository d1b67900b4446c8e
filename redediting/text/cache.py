"""Text states that are kept between edits: a prompt is encoded once for an unchanged encoder.

Edits of many pairs share their ordinary captions, and variants of a method share every prompt.
States are only kept and looked up inside a `remembered` block. On entering one the text encoder's
weights are fingerprinted, and what was kept for other weights, another tokenizer or device is
dropped; inside, nobody may change the encoder (edits only change the UNet).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from redediting.fingerprints import fingerprint

ROOM = 512 * 2**20  # bytes kept for one encoder; the states used longest ago go first


@dataclass
class Memory:
    """States of a pipeline's text encoders by prompt.

    Attributes:
        key: what they depend on besides the prompt.
        rows: shape ``(L, d)`` each, least recently used first.
        open: blocks that are using it.
    """

    key: tuple[object, ...] = ()
    rows: dict[str, Tensor] = field(default_factory=dict)
    open: int = 0

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


_MEMORIES: WeakKeyDictionary[nn.Module, Memory] = WeakKeyDictionary()


@contextmanager
def remembered(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Inside, `redediting.text.encoding.encode` keeps what it encodes and reuses what it kept.

    Args:
        pipeline: whose text encoder is not changed inside.
    """
    encoder = pipeline.text_encoder
    if encoder is None:  # `encode` says what is wrong with such a pipeline
        yield
        return
    memory = _MEMORIES.setdefault(encoder, Memory())
    if memory.open == 0:
        weights = [fingerprint(part.state_dict()) for part in _encoders(pipeline)]
        vocabulary = (id(pipeline.tokenizer), len(pipeline.tokenizer))
        key = (*weights, *vocabulary, str(encoder.device), type(pipeline))
        if memory.key != key:
            memory.key = key
            memory.rows.clear()
    memory.open += 1
    try:
        yield
    finally:
        memory.open -= 1


def _encoders(pipeline: DiffusionPipeline) -> list[nn.Module]:
    """Every text encoder: SDXL has two, SD 3 three."""
    names = sorted(name for name in pipeline.components if name.startswith("text_encoder"))
    parts = (pipeline.components[name] for name in names)
    return [part for part in parts if isinstance(part, nn.Module)]


def recall(pipeline: DiffusionPipeline) -> Memory | None:
    """The memory of a pipeline's encoder; None outside a `remembered` block."""
    memory = _MEMORIES.get(pipeline.text_encoder)
    return memory if memory is not None and memory.open else None


def forget(pipeline: DiffusionPipeline) -> None:
    """Drops what is kept, e.g. before an edit is timed on its own."""
    memory = _MEMORIES.get(pipeline.text_encoder)
    if memory is not None:
        memory.rows.clear()
