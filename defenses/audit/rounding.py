"""How much of a change may be rounding: the grid that a file was saved on, and its step.

A tensor that was once saved in fp16 or bf16 holds only numbers of that format, whatever its dtype
now. Rounding off the grid adds an error uniform within half a step, of energy step²/12; an entry
that was on the grid already moves by whole steps or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ROWS = 128  # of a matrix that are read at once, to keep temporaries small
GRIDS: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)  # coarsest first


def grid_of(weight: Float[Tensor, "m d"]) -> torch.dtype:
    """The coarsest format that holds every entry exactly; fp64 for other numbers."""
    blocks = weight.split(ROWS)
    for dtype in GRIDS:
        if all(torch.equal(block.to(dtype).to(weight.dtype), block) for block in blocks):
            return dtype
    return torch.float64


def step(weight: Float[Tensor, "m d"], dtype: torch.dtype) -> Float[Tensor, "m d"]:
    """Distance between neighbouring numbers of a format at each entry, fp64."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(weight.double())  # |w| = f 2^e, f in [1/2, 1)
    least = torch.frexp(torch.tensor(info.tiny, dtype=torch.float64)).exponent
    power = exponent.clamp_min(int(least)).double() - 1
    return info.eps * torch.exp2(power)


@dataclass(frozen=True)
class Rounding:
    """What rounding explains of one matrix's change."""

    energy: float  # expected ``Σ error²``
    within: bool  # whether every entry is as near to the base as rounding leaves it


def rounding(
    base: Float[Tensor, "m d"], suspect: Float[Tensor, "m d"], *, slack: float
) -> Rounding:
    """Compares a matrix with its base; rounding is up to ``slack`` times half a step."""
    grid = grid_of(suspect)
    if grid == torch.float64:
        return Rounding(0.0, torch.equal(suspect.double(), base.double()))
    energy, within = 0.0, True
    for trust, found in zip(base.split(ROWS), suspect.split(ROWS), strict=True):
        exact = trust.double()
        change = found.double() - exact
        size = step(found, grid)
        within = within and bool((change.abs() <= slack * size / 2).all())
        moved = (exact.to(grid).double() != exact) | (change != 0)  # on the grid: no error there
        energy += float((size.square() * moved).sum() / 12)
    return Rounding(energy, within)
