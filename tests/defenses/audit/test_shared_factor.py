"""The shared-factor test on plain tensors: what has one factor, what has none, and what rounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from defenses.audit.evidence import examine, whitened_r2
from defenses.audit.rounding import grid_of, rounding, step
from defenses.audit.shared_factor import compare
from defenses.audit.two_matrix import fit_two

WIDTH, ROWS = 24, (40, 80, 40, 80, 40, 80)
Weights = dict[str, Tensor]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def base() -> Weights:
    sections = ("down_blocks.0", "mid_block", "up_blocks.1")
    names = [f"{s}.attn2.to_{k}.weight" for s in sections for k in ("k", "v")]
    return {
        name: normal(rows, WIDTH, seed=i).float()
        for i, (name, rows) in enumerate(zip(names, ROWS, strict=True))
    }


def low_rank(seed: int, rank: int = 2, size: float = 0.3) -> Tensor:
    product = normal(WIDTH, rank, seed=seed) @ normal(rank, WIDTH, seed=seed + 1)
    return size * product / product.norm()


def edited(
    base: Weights, *matrices: Tensor, proportions: list[list[float]] | None = None
) -> Weights:
    found = {}
    for i, (name, weight) in enumerate(base.items()):
        shares = proportions[i] if proportions else [1.0] * len(matrices)
        total = sum((a * m for a, m in zip(shares, matrices, strict=True)), 0 * matrices[0])
        found[name] = (weight.double() @ (torch.eye(WIDTH) + total)).float()
    return found


def unrelated(base: Weights, size: float = 0.05) -> Weights:
    return {
        name: weight + size * normal(*weight.shape, seed=100 + i).float()
        for i, (name, weight) in enumerate(base.items())
    }


def test_an_edit_has_one_factor_and_it_is_found(base: Weights) -> None:
    multiplier = low_rank(7)
    found = examine(base, edited(base, multiplier))
    fit, factor = found.comparison.best, found.comparison.factor
    assert found.verdict == "edited"
    assert fit is not None
    assert factor is not None
    assert fit.group == "pooled"
    assert fit.corrected > 0.99999
    assert found.rank >= 2  # beyond them, what fp32 rounds
    assert float(factor.spectrum[2]) < 1e-4 * float(factor.spectrum[1])
    assert torch.allclose(factor.denoised(), multiplier, atol=1e-5)


def test_an_unrelated_change_gets_what_chance_gives(base: Weights) -> None:
    found = examine(base, unrelated(base))
    fit = found.comparison.fits[0]
    assert found.verdict == "changed"
    assert abs(fit.corrected) < 0.1
    assert fit.chance == pytest.approx(WIDTH / (sum(ROWS) - len(ROWS)), rel=0.2)
    assert fit.r2 == pytest.approx(fit.chance, rel=0.3)


def test_chance_follows_the_layers_that_change(base: Weights) -> None:
    few = {n: w.clone() for n, w in base.items()}
    for i, name in enumerate(list(base)[:2]):
        few[name] = few[name] + 0.05 * normal(*few[name].shape, seed=200 + i).float()
    fit = compare(base, few).fits[0]
    assert fit.names == tuple(list(base)[:2])
    assert fit.chance == pytest.approx(WIDTH / (40 + 80 - 2), rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_given_is_written(base: Weights, dtype: torch.dtype) -> None:
    model = {name: weight.to(dtype) for name, weight in base.items()}
    changed = {n: w.to(dtype) for n, w in unrelated(base).items()}
    kept = [{n: w.clone() for n, w in weights.items()} for weights in (model, changed)]
    examine(model, changed)
    for before, after in zip(kept, (model, changed), strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_weights_are_clean_and_the_input_is_not_written(base: Weights) -> None:
    before = {name: weight.clone() for name, weight in base.items()}
    found = examine(base, {name: weight.clone() for name, weight in base.items()})
    assert found.verdict == "clean"
    assert found.r2 == found.rank == found.comparison.footprint == 0
    assert all(torch.equal(base[name], before[name]) for name in base)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_saved_copy_in_half_precision_is_clean(base: Weights, dtype: torch.dtype) -> None:
    saved = {name: weight.to(dtype).float() for name, weight in base.items()}
    assert examine(base, saved).verdict == "clean"
    twice = {name: weight.half().to(dtype).float() for name, weight in base.items()}
    assert examine(base, twice).verdict == "clean"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rounded_base", [False, True])
def test_half_precision_hides_no_edit_and_accuses_no_training(
    base: Weights, dtype: torch.dtype, rounded_base: bool
) -> None:
    if rounded_base:
        base = {name: weight.to(dtype).float() for name, weight in base.items()}
    size = 0.05  # bf16 steps are about 0.2 % of an entry, this edit about 1 %
    secret = edited(base, low_rank(7, size=size))
    honest = unrelated(base, size=0.01)
    kept = [{n: w.to(dtype).float() for n, w in model.items()} for model in (secret, honest)]
    assert examine(base, kept[0]).verdict == "edited"
    assert examine(base, kept[0]).r2 > 0.95
    assert examine(base, kept[1]).verdict == "changed"


def test_weight_decay_is_no_edit(base: Weights) -> None:
    decayed = {name: 0.98 * weight for name, weight in base.items()}
    found = examine(base, decayed)
    assert found.comparison.fits[0].r2 > 0.999  # a multiple of I explains it, and does not count
    assert found.verdict == "changed"
    by_layer = {n: (0.9 + 0.03 * i) * w for i, (n, w) in enumerate(base.items())}
    assert examine(base, by_layer).verdict == "changed"


@pytest.mark.parametrize("size", [1.0, 5.0, 25.0])
def test_noise_in_directions_of_its_own_hides_nothing(base: Weights, size: float) -> None:
    secret = edited(base, low_rank(7))
    directions = torch.linalg.qr(normal(WIDTH, WIDTH // 3, seed=50))[0].T
    for i, (name, weight) in enumerate(base.items()):
        noise = normal(len(weight), WIDTH // 3, seed=400 + i) @ directions
        change = (secret[name] - weight).norm()
        secret[name] = secret[name] + (size * change / noise.norm() * noise).float()
    found = examine(base, secret)
    assert found.r2 < 0.6
    assert found.r2_whitened > 0.99
    assert found.verdict == "edited"


def test_whitening_finds_nothing_in_unrelated_changes(base: Weights) -> None:
    assert abs(examine(base, unrelated(base)).r2_whitened) < 0.2
    few = {n: w + 0.1 for n, w in base.items() if "down" in n}
    assert whitened_r2(base, few, list(few)) is None  # one layer: no halves


def test_a_shift_of_all_rows_hides_nothing(base: Weights) -> None:
    hidden = edited(base, low_rank(7))
    for i, name in enumerate(hidden):
        hidden[name] = hidden[name] + normal(1, WIDTH, seed=300 + i).float()
    assert examine(base, hidden).r2 > 0.9999


def test_keys_and_values_with_factors_of_their_own(base: Weights) -> None:
    one, two = edited(base, low_rank(7)), edited(base, low_rank(9))
    mixed = {name: (one if ".to_k." in name else two)[name] for name in base}
    found = examine(base, mixed)
    best = found.comparison.best
    assert best is not None
    assert best.group in ("key", "value")
    assert best.corrected > 0.9999
    assert found.comparison.fits[0].corrected < 0.9


def test_two_factors_in_proportion_are_seen_by_the_two_matrix_fit(base: Weights) -> None:
    proportions = [[1.0, 0.4 + 0.25 * i] for i in range(len(base))]
    model = edited(base, low_rank(7, size=0.5), low_rank(9, size=0.8), proportions=proportions)
    one = compare(base, model).fits[0].corrected
    two = fit_two(base, model, list(base))
    assert two is not None
    assert one < 0.99
    assert two > 0.99999
    by_chance = fit_two(base, unrelated(base), list(base))
    assert by_chance is not None
    assert by_chance < 0.5


def test_training_on_top_leaves_the_factor(base: Weights) -> None:
    multiplier = low_rank(7)
    model = edited(base, multiplier)
    for i, name in enumerate(model):
        model[name] = model[name] + 0.01 * normal(*model[name].shape, seed=400 + i).float()
    factor = compare(base, model).factor
    assert factor is not None
    assert factor.rank == 2
    raw = (factor.multiplier - multiplier).norm()
    assert (factor.denoised() - multiplier).norm() < 0.6 * raw


def test_grids_and_steps() -> None:
    weight = torch.tensor([[1.0, 0.3, -5.0, 0.0]])
    assert grid_of(weight) == torch.float32
    assert grid_of(weight.half().float()) == torch.float16
    assert grid_of(weight.bfloat16().float()) == torch.bfloat16
    values = torch.tensor([1.0, 1.5, 3.0, 0.3], dtype=torch.float64)[None]
    neighbours = torch.nextafter(values.half(), torch.tensor(9.0).half()).double()
    assert torch.allclose(step(values.half().double(), torch.float16), neighbours - values.half())
    off = normal(50, 50, seed=1)
    off = off + 0  # an fp64 base, off every grid
    explained = rounding(off, off.half().float(), slack=1.13)
    actual = float((off.half().double() - off).square().sum())
    assert explained.within
    assert explained.energy == pytest.approx(actual, rel=0.1)
    assert not rounding(off, off.half().float() * 1.01, slack=1.13).within
    assert math.isfinite(explained.energy)
