"""How long the weights' part of an audit takes on weights of Stable Diffusion 1.5's shapes.

``python -m experiments.audit.bench`` prints one JSON object: seconds for an edit in half
precision and for a change that asks for every fit, and the memory used beside the two models'
projections: the highest resident size less what was resident before, in units of one model's
projections.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from defenses.audit import examine

WIDTH = 768
_SHAPES = {  # rows of the cross-attention layers, in the order of the UNet
    "down_blocks": (320, 320, 640, 640, 1280, 1280),
    "mid_block": (1280,),
    "up_blocks": (1280, 1280, 1280, 640, 640, 640, 320, 320, 320),
}


def sd15_weights(seed: int = 0) -> dict[str, Tensor]:
    """Random fp32 projections of SD 1.5's shapes: 32 matrices, 19.2 M parameters."""
    random = torch.Generator().manual_seed(seed)
    return {
        f"{block}.{i}.attn2.to_{kind}.weight": torch.randn(rows, WIDTH, generator=random) * 0.03
        for block, sizes in _SHAPES.items()
        for i, rows in enumerate(sizes)
        for kind in ("k", "v")
    }


def bench() -> dict[str, float]:
    """Measures; the highest memory counts, so a process should run it once."""
    base = sd15_weights()
    size = sum(weight.numel() * weight.element_size() for weight in base.values())
    random = torch.Generator().manual_seed(1)
    left, right = (torch.randn(WIDTH, 8, generator=random) / WIDTH**0.5 for _ in range(2))
    suspect = {n: (w + (w @ left) @ right.T).half().float() for n, w in base.items()}
    tiny = {name: torch.randn(80, 16, generator=random) for name in base}
    examine(tiny, {name: w + 0.1 * torch.randn_like(w) for name, w in tiny.items()})  # loads BLAS
    before = _resident()
    start = time.perf_counter()
    found = examine(base, suspect).r2
    seconds = time.perf_counter() - start
    for weight in suspect.values():  # in place: a change without a shared factor
        weight.copy_(torch.randn(weight.shape, generator=random) * 0.001)
    for name, weight in base.items():
        suspect[name] += weight
    start = time.perf_counter()
    other = examine(base, suspect).r2
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "seconds_edited": seconds,
        "seconds_changed": time.perf_counter() - start,
        "extra_ratio": extra / size,
        "r2_edited": found,
        "r2_changed": other,
    }


def _resident() -> int:
    """Bytes of memory in use; Linux."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bench()) + "\n")
