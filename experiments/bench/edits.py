"""The edit itself: ours against the published loop, a competent solve, and the floor; and growth.

Ours is the library's own path from text states to edited weights, `EditProblem` → `solve` → `Term`
→ `Patch.rewrite`, its copy for the revert included. What `Patch.apply` does before, hashing the
weights to see that they are the right ones, none of the rivals does: it is timed apart. Text is
encoded outside all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from experiments.bench.measure import medians, peak_extra, timed
from experiments.bench.rivals import (
    bare_products,
    exact_update,
    per_layer_solve,
    plain_copy,
    published_loop,
)
from experiments.bench.shapes import States, random_states
from redediting import __version__
from redediting.algebra import EditProblem, solve
from redediting.io import fingerprint
from redediting.patch.applied import AppliedPatch
from redediting.patch.files import Provenance
from redediting.patch.patch import Patch, Term

RIDGE = 1.0  # EvilEdit's λ
BACKDOORS = (1, 10, 100, 1000)
FIGURES = ("ours", "loop", "per_layer", "floor", "copy")

_PROVENANCE = Provenance(
    method="benchmark", options={"ridge": RIDGE}, rebindings=[], seconds=0.0, version=__version__
)


def make_term(names: Mapping[str, Tensor], states: States) -> Term:
    """The closed form on given states."""
    keys, targets = states.columns
    problem = EditProblem.build(keys, targets, ridge=RIDGE)
    return Term.shared(solve(problem), list(names))


def edit(weights: Mapping[str, Tensor], states: States) -> AppliedPatch:
    """The whole edit, in force."""
    return Patch("", _PROVENANCE, (make_term(weights, states),)).rewrite(weights)


def bench_edit(
    shape: str,
    weights: Mapping[str, Tensor],
    *,
    repeats: int = 5,
    loop_repeats: int = 5,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times the edit of one backdoor beside its rivals, turn by turn: figures, then details.

    The weights, all on one device, end as they began.
    """
    first = next(iter(weights.values()))
    width, device = first.shape[1], str(first.device)
    states = random_states(1, width, device=device)
    keys, targets = states.columns
    term = make_term(weights, states)
    left, right = term.left.to(device), term.right.to(device)
    restore = plain_copy(weights)
    edit(weights, states).revert()  # warm
    samples: dict[str, list[float]] = {
        name: [] for name in ("ours", "loop", "per_layer", "floor", "copy", "solve", "hash")
    }
    error, loop_error = 0.0, 0.0
    for turn in range(max(repeats, loop_repeats)):
        if turn < repeats:
            samples["copy"].append(timed(lambda: plain_copy(weights), device)[0])
            samples["floor"].append(timed(lambda: bare_products(weights, left, right), device)[0])
            _restore(weights, restore)
            seconds, applied = timed(lambda: edit(weights, states), device)
            samples["ours"].append(seconds)
            if turn == 0:
                error = worst_error(weights, restore, keys, targets)
            applied.revert()
            del applied
            samples["solve"].append(timed(lambda: make_term(weights, states), device)[0])
            samples["hash"].append(timed(lambda: fingerprint(weights), device)[0])
            seconds, _ = timed(
                lambda: per_layer_solve(weights, keys, targets, ridge=RIDGE), device
            )
            samples["per_layer"].append(seconds)
            _restore(weights, restore)
        if turn < loop_repeats:
            seconds, _ = timed(lambda: published_loop(weights, states.pairs, ridge=RIDGE), device)
            samples["loop"].append(seconds)
            if turn == 0:
                loop_error = worst_error(weights, restore, keys, targets)
            _restore(weights, restore)
    size = sum(weight.nbytes for weight in weights.values())
    extra = peak_extra(lambda: edit(weights, states), device)
    _restore(weights, restore)
    seconds_by_name = medians(samples)
    ours = seconds_by_name["ours"]
    figures = {
        "speedup_vs_loop": seconds_by_name["loop"] / ours,
        "speedup_vs_per_layer": seconds_by_name["per_layer"] / ours,
        "ratio_to_floor": ours / seconds_by_name["floor"],
        "ratio_to_copy": ours / seconds_by_name["copy"],
        "max_rel_error": error,
        "peak_extra_ratio": extra / size,
        "seconds": {name: seconds_by_name[name] for name in FIGURES},
    }
    details = {
        "shape": shape,
        "matrices": len(weights),
        "width": width,
        "megabytes": size / 1e6,
        "rank": left.shape[1],
        "repeats": repeats,
        "loop_repeats": loop_repeats,
        "loop_rel_error": loop_error,
        "solve_seconds": seconds_by_name["solve"],
        "hash_seconds": seconds_by_name["hash"],
        "samples": samples,
    }
    return figures, details


def bench_growth(
    shape: str, weights: Mapping[str, Tensor], *, backdoors: Sequence[int] = BACKDOORS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times the edit of more and more backdoors at once, of 154 columns each."""
    first = next(iter(weights.values()))
    width, device = first.shape[1], str(first.device)
    edit(weights, random_states(1, width, device=device)).revert()  # warm
    seconds = []
    for n in backdoors:
        states = random_states(n, width, device=device)
        samples = []
        for _ in range(1 if n > 100 else 5):
            taken, applied = timed(lambda states=states: edit(weights, states), device)  # type: ignore[misc]
            applied.revert()
            samples.append(taken)
        seconds.append(medians({"ours": samples})["ours"])
    return (
        {"backdoors": list(backdoors), "seconds": seconds},
        {"shape": shape, "matrices": len(weights), "width": width},
    )


def worst_error(
    weights: Mapping[str, Tensor], clean: list[Tensor], keys: Tensor, targets: Tensor
) -> float:
    """Largest ``‖W' - ref‖_F / ‖ref‖_F`` over the layers, ref from the clean weight in fp64."""
    worst = 0.0
    for weight, before in zip(weights.values(), clean, strict=True):
        reference = exact_update(before, keys, targets, ridge=RIDGE)
        worst = max(worst, float((weight.double() - reference).norm() / reference.norm()))
    return worst


def _restore(weights: Mapping[str, Tensor], clean: list[Tensor]) -> None:
    for weight, before in zip(weights.values(), clean, strict=True):
        weight.copy_(before)
