"""Wall time and peak memory."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


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
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)
        before = _resident("VmRSS", reset=True)
        kept = run()
        extra = _resident("VmHWM") - before
    del kept
    return extra


def _synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _resident(key: str, *, reset: bool = False) -> int:
    """Bytes by Linux's ``/proc``, or the process's high-water mark where that is not to be had."""
    process = Path("/proc/self")
    try:
        if reset:
            (process / "clear_refs").write_text("5")
        lines = (process / "status").read_text("utf-8").splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
