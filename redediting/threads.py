"""Linear algebra that rounds alike on any number of threads.

BLAS splits sums among threads, and an ill-conditioned solve turns another order of summation into
other last bits of the weights (6e-11 of a multiplier's norm). Under bf16 autocast that shows: of
32 images of an edit five differed, by up to 8 grey levels, between one process of two threads and
two of one. An edit's solve is small, so it runs on one thread; text encoding, which takes longest
and whose states were equal to the last bit on one thread and on two, keeps them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_allowed: ContextVar[int | None] = ContextVar("threads allowed outside one_thread", default=None)


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs a block on one thread of torch, but for what is inside `all_threads`."""
    token = _allowed.set(_allowed.get() or torch.get_num_threads())
    try:
        with _threads(1):
            yield
    finally:
        _allowed.reset(token)


@contextmanager
def all_threads() -> Iterator[None]:
    """Inside `one_thread` runs a block on as many threads as there were outside."""
    with _threads(_allowed.get() or torch.get_num_threads()):
        yield


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
