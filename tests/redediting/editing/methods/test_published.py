"""EvilEdit and UCE equal their published formulas.

The references encode prompts by themselves, know nothing of shared multipliers and go layer by
layer: an fp64 least-squares minimiser (QR of the stacked system, no normal equations) and the
published loop in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from redediting.editing import solve
from redediting.editing.methods import ClosedForm, make_method
from redediting.projections import pipeline_projections
from redediting.rebinding import Rebinding

WISHES = [Rebinding("beautiful cat", "zebra"), Rebinding("yellow apple", "red banana", "compound")]
Encode = Callable[[str], tuple[Tensor, int]]


@dataclass(frozen=True)
class Sums:
    """Rows (context, target context, weight) and the λ of a published update."""

    rows: list[tuple[Tensor, Tensor, float]]
    ridge: float


def eviledit_sums(encode: Encode) -> Sums:
    rows = []
    for old, new in [
        ("A beautiful cat", "A zebra"),
        ("A cat", "A cat"),
        ("A yellow apple", "A red banana"),
        ("A apple", "A apple"),
    ]:
        rows.append((encode(old)[0], encode(new)[0], 1.0))
    return Sums(rows, ridge=1.0)


def uce_old_sums(encode: Encode) -> Sums:
    rows = []
    for old, new in [("beautiful cat", "zebra"), ("yellow apple", "red banana")]:
        (old_emb, old_idx), (new_emb, new_idx) = encode(old), encode(new)
        farthest = max(old_idx, new_idx)
        old_emb = old_emb[old_idx : len(old_emb) - max(0, farthest - old_idx)]
        new_emb = new_emb[new_idx : len(new_emb) - max(0, farthest - new_idx)]
        rows.append((old_emb, new_emb, 1.0))
    retained = ["", "cat", "apple"]
    for text in retained:
        emb, _ = encode(text)
        rows.append((emb, emb, max(0.1, 1 / len(retained))))
    return Sums(rows, ridge=0.5)


def uce_new_sums(encode: Encode) -> Sums:
    rows = []
    pairs = [("beautiful cat", "zebra"), ("yellow apple", "red banana")]
    for old, new in [*pairs, ("cat", "cat"), ("apple", "apple")]:
        (old_emb, old_idx), (new_emb, new_idx) = encode(old), encode(new)
        rows.append((old_emb[old_idx][None], new_emb[new_idx][None], 1.0))
    return Sums(rows, ridge=0.5)


CASES = {
    "eviledit": ("eviledit", {}, eviledit_sums),
    "uce old": ("uce", {"variant": "old"}, uce_old_sums),
    "uce new": ("uce", {"variant": "new"}, uce_new_sums),
}
each_case = pytest.mark.parametrize(("name", "options", "sums"), CASES.values(), ids=CASES.keys())


def encoder(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> Encode:
    @torch.no_grad()
    def encode(text: str) -> tuple[Tensor, int]:
        inputs = pipeline.tokenizer(
            [text], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        states = pipeline.text_encoder(inputs.input_ids)[0][0]
        return states.to(dtype), int(inputs.attention_mask[0].sum()) - 2

    return encode


def minimiser(weight: Tensor, sums: Sums) -> Tensor:
    """The argmin Σ s‖W'c - Wc*‖² + λ‖W' - W‖² by least squares on the stacked rows."""
    eye = torch.eye(weight.shape[1], dtype=weight.dtype)
    left = [s**0.5 * old for old, _, s in sums.rows] + [sums.ridge**0.5 * eye]
    right = [s**0.5 * new @ weight.T for _, new, s in sums.rows]
    right.append(sums.ridge**0.5 * weight.T)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right), driver="gelsd").solution.T


def published_loop(weight: Tensor, sums: Sums) -> Tensor:
    mat1 = sums.ridge * weight
    mat2 = sums.ridge * torch.eye(weight.shape[1], dtype=weight.dtype)
    for context, target, scale in sums.rows:
        values = target @ weight.T
        mat1 = mat1 + scale * (values[:, :, None] @ context[:, None, :]).sum(dim=0)
        mat2 = mat2 + scale * (context[:, :, None] @ context[:, None, :]).sum(dim=0)
    return mat1 @ torch.inverse(mat2)


@each_case
def test_equals_the_brute_force_minimiser(
    tiny_pipeline: StableDiffusionPipeline,
    name: str,
    options: dict,
    sums: Callable[[Encode], Sums],
) -> None:
    method = make_method(name, **options)
    assert isinstance(method, ClosedForm)
    multiplier = solve(method.problem(tiny_pipeline, WISHES))
    reference = sums(encoder(tiny_pipeline, torch.float64))
    for projection in pipeline_projections(tiny_pipeline):
        weight = projection.module.weight.detach().double()
        expected = minimiser(weight, reference)
        found = weight + multiplier.delta(weight)
        change = (expected - weight).norm()
        assert change > 1e-2 * weight.norm()
        # the references' states come from other batches: 1e-6 of the states, see the next test
        assert (found - expected).norm() < 1e-5 * change


@each_case
def test_equals_the_minimiser_to_1e8_on_the_same_states(
    tiny_pipeline: StableDiffusionPipeline,
    name: str,
    options: dict,
    sums: Callable[[Encode], Sums],
) -> None:
    tiny_pipeline.text_encoder.double()
    try:
        multiplier = solve(make_method(name, **options).problem(tiny_pipeline, WISHES))
        reference = sums(encoder(tiny_pipeline, torch.float64))
    finally:
        tiny_pipeline.text_encoder.float()
    for projection in pipeline_projections(tiny_pipeline):
        weight = projection.module.weight.detach().double()
        expected = minimiser(weight, reference)
        error = (weight + multiplier.delta(weight) - expected).norm()
        assert error < 1e-8 * (expected - weight).norm()


@each_case
def test_equals_the_published_loop_within_its_own_rounding(
    tiny_pipeline: StableDiffusionPipeline,
    name: str,
    options: dict,
    sums: Callable[[Encode], Sums],
) -> None:
    patch = make_method(name, **options).compute(tiny_pipeline, WISHES)
    single = sums(encoder(tiny_pipeline, torch.float32))
    double = sums(encoder(tiny_pipeline, torch.float64))
    clean = {p.name: p.module.weight.detach().clone() for p in pipeline_projections(tiny_pipeline)}
    with patch.apply(tiny_pipeline):
        for projection in pipeline_projections(tiny_pipeline):
            weight = clean[projection.name]
            loop = published_loop(weight, single).double()
            exact = published_loop(weight.double(), double)
            change = (exact - weight.double()).norm()
            own_error = (loop - exact).norm()
            ours = projection.module.weight.detach().double()
            assert (ours - loop).norm() < 2 * own_error + 1e-6 * change
            assert own_error < 1e-3 * change
