"""How long the weights' part of an audit takes on weights of Stable Diffusion 1.5's shapes.

``python -m experiments.bench.audit`` prints one JSON object: seconds for an edit in half precision
and for a change that asks for every fit, and the memory used beside the two models' projections,
in units of one model's.
"""

from __future__ import annotations

import json
import sys

import torch

from defenses.audit import examine
from experiments.bench.measure import peak_extra, timed
from experiments.bench.shapes import projection_tensors


def bench_audit() -> dict[str, float]:
    """Measures both kinds of change."""
    base = projection_tensors("sd15")
    size = sum(weight.nbytes for weight in base.values())
    random = torch.Generator().manual_seed(1)
    width = next(iter(base.values())).shape[1]
    left, right = torch.randn(2, width, 8, generator=random) / width**0.5
    edited = {n: (w + (w @ left) @ right.T).half().float() for n, w in base.items()}
    seconds, found = timed(lambda: examine(base, edited), "cpu")
    for name, weight in edited.items():  # in place: a change without a shared factor
        weight.copy_(base[name] + 0.001 * torch.randn(weight.shape, generator=random))
    slow, other = timed(lambda: examine(base, edited), "cpu")
    extra = peak_extra(lambda: examine(base, edited), "cpu")
    figures = {"seconds_edited": seconds, "seconds_changed": slow, "extra_ratio": extra / size}
    return figures | {"r2_edited": found.r2, "r2_changed": other.r2}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bench_audit()) + "\n")
