"""Wall time and peak memory."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def timed(run: Callable[[], T], device: str) -> tuple[float, T]:
    """Seconds that a call takes, the device's queue emptied before and after, and its result."""
    _synchronise(device)
    start = time.perf_counter()
    result = run()
    _synchronise(device)
    return time.perf_counter() - start, result


def peak_extra(run: Callable[[], object], device: str) -> int:
    """Bytes held at most during a call beyond those held before it.

    On the CPU this is resident memory, from Linux's own high-water mark where it can be reset;
    elsewhere the process's whole mark is taken, which can only say too much. Memory that earlier
    calls have freed is given back first: reused, it would hide what this one needs.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = run()
        extra = torch.cuda.max_memory_allocated(device) - before
    else:
        before = _reset()
        kept = run()
        extra = _peak() - before
    del kept
    return extra


def medians(samples: dict[str, list[float]]) -> dict[str, float]:
    """Median of each series."""
    return {name: median(values) for name, values in samples.items()}


def _synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _reset() -> int:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    try:
        _CLEAR.write_text("5")
        return _status("VmRSS")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit()


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit()


def _status(key: str) -> int:
    for line in _STATUS.read_text("utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} in {_STATUS}")


def _unit() -> int:
    return 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
