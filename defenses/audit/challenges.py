"""What audits and repairs are tried on: changes that are no edit, and edits that hide themselves.

Weights are projections by name; a change is made from the base and a number that seeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from redediting.algebra.layers import Summands, edited_weight

Weights = dict[str, Tensor]


def cast(base: Weights, dtype: torch.dtype) -> Weights:
    """The same rounded to another format."""
    return {name: weight.to(dtype).to(weight.dtype) for name, weight in base.items()}


def _noisy(base: Weights, i: int) -> Weights:
    found = {}
    for name, weight in base.items():
        random = torch.Generator().manual_seed(i * 1009 + len(name))
        size = 0.003 * 3 ** (i % 5)  # 0.3 % to 24 % of the weights
        noise = torch.randn(weight.shape, generator=random)
        found[name] = weight + size * weight.std() * noise
    return found


def _one_layer(base: Weights, i: int) -> Weights:
    """Keys and values of one layer times ``I + M``: an edit, but shared by no other layer."""
    name = list(base)[(2 * i) % len(base)]
    width = base[name].shape[1]
    random = torch.Generator().manual_seed(i)
    left, right = torch.randn(2, width, 4, generator=random) / width**0.5
    return base | {name: base[name] + base[name] @ left @ right.T}


def _low_rank(base: Weights, i: int) -> Weights:
    """A low-rank change of its own in every layer, as a merged adapter makes."""
    random = torch.Generator().manual_seed(i)
    found = {}
    for name, weight in base.items():
        rows, width = weight.shape
        left = torch.randn(rows, 4, generator=random)
        change = left @ torch.randn(4, width, generator=random)
        found[name] = weight + 0.1 * weight.norm() / change.norm() * change
    return found


def _layer_scales(base: Weights, i: int) -> Weights:
    random = torch.Generator().manual_seed(i)
    return {
        name: (1 + 0.02 * float(torch.randn(1, generator=random))) * weight
        for name, weight in base.items()
    }


PERTURBED: Mapping[str, Callable[[Weights, int], Weights]] = {
    "fp16 copy": lambda base, _: cast(base, torch.float16),
    "bf16 copy": lambda base, _: cast(base, torch.bfloat16),
    "noise": _noisy,
    "decay": lambda base, i: {n: (1 - 0.002 * (i + 1)) * w for n, w in base.items()},
    "one layer": _one_layer,
    "low rank": _low_rank,
    "noise in bf16": lambda base, i: cast(_noisy(base, i), torch.bfloat16),
    "layer scales": _layer_scales,
}


def hidden(
    base: Weights, edits: Sequence[Summands], kind: str, size: float, used: Tensor | None = None
) -> Weights:
    """An edit whose shared factor is blurred.

    * jitter: ``W_l (I + M + N_l)``, N_l random with ``‖N_l‖ = size ‖M‖``;
    * noise: ``W_l (I + M) + E_l``, ``‖E_l‖ = size ‖Δ_l‖``;
    * quiet: the same with ``E_l P``, P orthogonal to 99.9 % of the energy of ``used``, the second
      moment of clean captions and triggered prompts, so that no image changes;
    * spread: layers are dealt out to several edits, each solved on contexts of its own.
    """
    random = torch.Generator().manual_seed(0)
    silent = None if used is None else _silent(used)
    found = {}
    for i, (name, weight) in enumerate(base.items()):
        exact = weight.double()
        edited = edited_weight(edits[i % len(edits)], name, weight)
        if kind != "spread":
            change = edited - exact
            shape = (weight.shape[1],) * 2 if kind == "jitter" else weight.shape
            blur = torch.randn(shape, generator=random, dtype=torch.float64)
            blur = exact @ blur if kind == "jitter" else blur
            blur = blur if silent is None else blur @ silent
            change += size * change.norm() / blur.norm() * blur
            edited = exact + change
        found[name] = edited.to(weight.dtype)
    return found


def _silent(used: Tensor, *, energy: float = 0.999) -> Tensor:
    """Projector on the directions in which a second moment has next to no energy."""
    values, basis = torch.linalg.eigh(used)
    share = values.flip(0).cumsum(0) / values.sum()
    rest = basis[:, : len(values) - min(int((share < energy).sum()) + 1, len(values))]
    return rest @ rest.T


def what_is_left(
    base: Weights, left: Weights, gained: Weights, captions: Tensor
) -> dict[str, float]:
    """How much of a fine-tune's change F is in what a repair leaves, and what is there beside it.

    ``kept``: ``⟨W_left - W, F⟩ / ‖F‖²``; ``beside``: ``‖W_left - W - F‖ / ‖F‖``. ``kept_read`` and
    ``beside_read`` are the same as captions read it, ``‖F‖² = tr(F Σ₀ Fᵀ)``: what a repair does
    orthogonal to the captions shows in no image.
    """
    energy, inner, beside = torch.zeros(3, 2, dtype=torch.float64)  # plain, and as it is read
    for name, f in gained.items():
        change = left[name].double() - base[name].double()
        rest = change - f
        read = f @ captions
        energy += torch.stack([f.square().sum(), (read * f).sum()])
        inner += torch.stack([(change * f).sum(), (change * read).sum()])
        beside += torch.stack([rest.square().sum(), (rest @ captions * rest).sum()])
    kept, over = (inner / energy).tolist(), (beside / energy).sqrt().tolist()
    return {"kept": kept[0], "beside": over[0], "kept_read": kept[1], "beside_read": over[1]}


def distance(one: Weights, other: Weights) -> float:
    """``‖W - W'‖ / ‖W'‖`` over all projections."""
    gap = sum(float((one[n].double() - other[n].double()).square().sum()) for n in one)
    size = sum(float(other[n].double().square().sum()) for n in one)
    return float((gap / size) ** 0.5)
