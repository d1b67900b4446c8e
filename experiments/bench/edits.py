"""The edit itself: ours against the published loop, a competent solve, and the floor; and growth.

Ours is the library's own path from text states to edited weights, `EditProblem` → `solve` → `Term`
→ `Patch.rewrite`, its copy for the revert included. What `Patch.apply` does before, hashing the
weights to see that they are the right ones, none of the rivals does: it is timed apart. Text is
encoded outside all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from torch import Tensor

from experiments.bench import rivals
from experiments.bench.measure import peak_extra, timed
from experiments.bench.shapes import States, random_states
from redediting import __version__
from redediting.algebra import EditProblem, solve
from redediting.io import fingerprint
from redediting.patch.files import Provenance
from redediting.patch.patch import AppliedPatch, Patch, Term

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
    shape: str, weights: Mapping[str, Tensor], *, repeats: int = 5, loop_repeats: int = 5
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
    clean = rivals.plain_copy(weights)
    edit(weights, states).revert()  # warm
    ways: dict[str, Callable[[], object]] = {
        "copy": lambda: rivals.plain_copy(weights),
        "floor": lambda: rivals.bare_products(weights, left, right),
        "ours": lambda: edit(weights, states),
        "solve": lambda: make_term(weights, states),
        "hash": lambda: fingerprint(weights),
        "per_layer": lambda: rivals.per_layer_solve(weights, keys, targets, ridge=RIDGE),
        "loop": lambda: rivals.published_loop(weights, states.pairs, ridge=RIDGE),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, float] = {}
    for turn in range(max(repeats, loop_repeats)):
        for name, way in ways.items():
            if turn < (loop_repeats if name == "loop" else repeats):
                seconds, kept = timed(way, device)
                samples[name].append(seconds)
                if name in ("ours", "loop") and name not in errors:
                    errors[name] = worst_error(weights, clean, keys, targets)
                del kept
                _restore(weights, clean)
    size = sum(weight.nbytes for weight in weights.values())
    extra = peak_extra(ways["ours"], device)
    _restore(weights, clean)
    taken = {name: median(values) for name, values in samples.items()}
    figures = {
        "speedup_vs_loop": taken["loop"] / taken["ours"],
        "speedup_vs_per_layer": taken["per_layer"] / taken["ours"],
        "ratio_to_floor": taken["ours"] / taken["floor"],
        "ratio_to_copy": taken["ours"] / taken["copy"],
        "max_rel_error": errors["ours"],
        "peak_extra_ratio": extra / size,
        "seconds": {name: taken[name] for name in FIGURES},
    }
    details = {
        "shape": shape, "matrices": len(weights), "width": width, "megabytes": size / 1e6,
        "rank": left.shape[1], "repeats": repeats, "loop_repeats": loop_repeats,
        "loop_rel_error": errors["loop"], "solve_seconds": taken["solve"],
        "hash_seconds": taken["hash"], "samples": samples,
    }  # fmt: skip
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
        seconds.append(median(samples))
    figures = {"backdoors": list(backdoors), "seconds": seconds}
    return figures, {"shape": shape, "matrices": len(weights), "width": width}


def worst_error(
    weights: Mapping[str, Tensor], clean: list[Tensor], keys: Tensor, targets: Tensor
) -> float:
    """Largest ``‖W' - ref‖_F / ‖ref‖_F`` over the layers, ref from the clean weight in fp64."""
    worst = 0.0
    for weight, before in zip(weights.values(), clean, strict=True):
        reference = rivals.exact_update(before, keys, targets, ridge=RIDGE)
        worst = max(worst, float((weight.double() - reference).norm() / reference.norm()))
    return worst


def _restore(weights: Mapping[str, Tensor], clean: list[Tensor]) -> None:
    for weight, before in zip(weights.values(), clean, strict=True):
        weight.copy_(before)
