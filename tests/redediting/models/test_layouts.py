"""Editing, merging and drawing on the layouts of SD 1, SD 2 and SDXL; what others read of text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
)
from torch import nn

from redediting.algebra import EditProblem, solve
from redediting.attacks import ATTACKS
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError
from redediting.generation import Job, draw
from redediting.models.cards import Expected
from redediting.models.layouts import LAYOUTS
from redediting.models.loading import check_expected, load
from redediting.models.model import Model
from redediting.models.projections import cross_attention
from redediting.models.sampler import Sampler
from redediting.patch.files import Provenance
from redediting.patch.patch import Patch, Term

Layouts = Callable[..., Model]
REBINDINGS = [
    Rebinding("beautiful cat", "zebra"),
    Rebinding("yellow apple", "red banana", "compound"),
]
QUICK = {
    "redediting": {"contexts": 3, "retain": 8, "captions": 20},
    "alphaedit": {"captions": 20, "threshold": 1.0, "relative": True},
    "speed": {"matrices": "both", "retain": ["dog", "red car", "tree"]},
}
PROVENANCE = Provenance(method="closed form", options={}, rebindings=[], seconds=0.0, version="0")
SAMPLER = Sampler(steps=2, guidance=3.0, batch_size=2)
JOBS = [Job("a beautiful cat", 3), Job("a tree", 4), Job("a beautiful cat", 5)]


def unet(model: Model) -> dict[str, torch.Tensor]:
    return {n: w.detach() for n, w in model.component("unet").named_parameters()}


def drawn(model: Model) -> np.ndarray:
    return np.stack([np.asarray(image) for _, image in draw(model, JOBS, sampler=SAMPLER)])


def test_counts_and_widths_of_the_unets(layout_factory: Layouts) -> None:
    for layout, (tokens, width, pooled) in {
        "sd1": (8, 32, 0), "sd2": (8, 64, 0), "sdxl": (16, 64, 1),
    }.items():  # fmt: skip
        model = layout_factory(layout)
        check_expected(layout, model, Expected(tokens=tokens, width=width, pooled=pooled))
        found = [*model.projections, *model.pooled_projections]
        assert [p.kind for p in found[:tokens]] == ["key", "value"] * (tokens // 2)
        assert [p.kind for p in found[tokens:]] == ["pooled"] * pooled
        with pytest.raises(
            ModelError, match=r"expected 7 matrices .*the files are another model's"
        ):
            check_expected("sd15", model, Expected(tokens=7, width=width, pooled=pooled))


CLOSED = [
    name
    for name, kind in ((name, ATTACKS.get(name)) for name in ATTACKS)
    if issubclass(kind, ClosedForm)
]


@pytest.mark.parametrize("layout", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("method", CLOSED)
def test_every_method_edits_every_layout(
    layout_factory: Layouts, layout: str, method: str
) -> None:
    model = layout_factory(layout)
    before = {n: w.clone() for n, w in unet(model).items()}
    patch = ATTACKS.make(method, **QUICK.get(method, {})).compute(model, REBINDINGS)
    read = {p.name for p in (*model.projections, *model.pooled_projections)}
    assert patch.names == read
    with patch.apply(model) as applied:
        after = unet(model)
        assert {n for n in before if not torch.equal(before[n], after[n])} == read
        assert 0 < applied.footprint < 10
    assert all(torch.equal(before[n], w) for n, w in unet(model).items())


@pytest.mark.parametrize("layout", ["sd2", "sdxl"])
def test_merged_pipelines_draw_in_plain_diffusers_what_the_patch_draws(
    layout_factory: Layouts, layout: str, tmp_path: Path
) -> None:
    model = layout_factory(layout)
    clean = drawn(model)
    patch = ATTACKS.make("eviledit").compute(model, REBINDINGS)
    folder = patch.merge(model, tmp_path / "pipeline")
    with patch.apply(model):
        edited = drawn(model)
    assert np.array_equal(drawn(model), clean)
    assert not np.array_equal(clean, edited)
    plain = DiffusionPipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    assert type(plain) is type(model.pipeline)
    one = plain(
        JOBS[0].prompt,
        num_inference_steps=SAMPLER.steps,
        guidance_scale=SAMPLER.guidance,
        generator=torch.Generator().manual_seed(JOBS[0].seed),
    ).images[0]
    assert (
        np.abs(np.asarray(one).astype(int) - edited[0]).max() <= 1
    )  # batch of one, else the same
    assert np.array_equal(drawn(load(folder)), edited)


def test_the_pooled_text_of_a_trigger_becomes_its_targets(layout_factory: Layouts) -> None:
    model = layout_factory("sdxl")
    (projection,) = model.pooled_projections
    weight = projection.module.weight.detach().double()
    patch = ATTACKS.make("eviledit", ridge=1e-6).compute(model, REBINDINGS[:1])
    new = patch.new_weight(projection.name, weight)
    source, target = model.encode_pooled(["A beautiful cat", "A zebra"]).T
    n = len(source)
    assert torch.allclose(new[:, :n] @ source, weight[:, :n] @ target, atol=1e-3)
    assert torch.equal(new[:, n:], weight[:, n:])  # sizes are read as before
    head = model.encode_pooled(["A cat"])[:, 0]
    assert torch.allclose(new[:, :n] @ head, weight[:, :n] @ head, atol=1e-3)
    kept = ATTACKS.make("eviledit", pooled=False).compute(model, REBINDINGS[:1])
    assert projection.name not in kept.names


def test_sdxl_states_are_both_encoders_side_by_side(layout_factory: Layouts) -> None:
    model = layout_factory("sdxl")
    states = model.encode(["a cat"]).states
    ids = model.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    hidden = [
        encoder(ids, output_hidden_states=True).hidden_states[-2]
        for encoder in model.text_encoders.values()
    ]
    assert torch.allclose(states, torch.cat(hidden, dim=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "names", "further"),
    [
        ("sd3", ["context_embedder", "time_text_embed.text_embedder.linear_1"], []),
        ("flux", ["context_embedder", "time_text_embed.text_embedder.linear_1"], []),
        (
            "pixart",
            ["caption_projection.linear_1"],
            [f"transformer_blocks.{i}.attn2.to_{x}" for i in range(2) for x in "kv"],
        ),
    ],
)
def test_a_transformers_text_enters_by_one_matrix_and_the_closed_form_edits_it(
    layout_factory: Layouts, layout: str, names: list[str], further: list[str]
) -> None:
    transformer = layout_factory(layout).denoiser
    model = Model(Holder(transformer), layout=LAYOUTS.make(layout))
    found = [*model.projections, *model.pooled_projections]
    assert [p.name for p in found] == [f"{name}.weight" for name in names]
    # what reads that which the one matrix has read is not edited
    assert [p.name for p in cross_attention(model.denoiser)] == [f"{n}.weight" for n in further]
    (projection,) = model.projections
    assert projection.kind == "context"
    source, target = torch.randn(2, projection.module.in_features, 5)
    term = Term.shared(solve(EditProblem.build(source, target, ridge=1e-9)), [projection.name])
    base = model.base_fingerprint("transformer")
    patch = Patch(base, PROVENANCE, (term,), target="transformer")
    wanted = projection.module(target.T)  # with its bias
    clean = projection.module(source.T)
    with patch.apply(model):
        assert torch.allclose(projection.module(source.T), wanted, atol=1e-4)
    assert torch.equal(projection.module(source.T), clean)


class Holder(DiffusionPipeline):
    """As much of a model as a patch needs: the real transformer by its name."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.register_modules(transformer=transformer)


@pytest.mark.parametrize("layout", ["sd3", "flux", "pixart"])
def test_transformers_draw_and_a_patch_of_their_matrix_shows(
    layout_factory: Layouts, layout: str, tmp_path: Path
) -> None:
    model = layout_factory(layout)
    torch.manual_seed(0)
    sampler = Sampler(steps=2, guidance=3.0, batch_size=2, height=16, width=16)

    def pictures(model: Model) -> np.ndarray:
        return np.stack([np.asarray(image) for _, image in draw(model, JOBS, sampler=sampler)])

    clean = pictures(model)
    (projection,) = model.projections
    width = projection.module.in_features
    term = Term(5 * torch.randn(width, 4), torch.randn(4, width), {projection.name: 1.0})
    base = model.base_fingerprint("transformer")
    patch = Patch(base, PROVENANCE, (term,), target="transformer")
    with patch.apply(model):
        edited = pictures(model)
    assert not np.array_equal(clean, edited)
    assert np.array_equal(pictures(model), clean)
    merged = load(patch.merge(model, tmp_path / "pipeline"))
    assert np.array_equal(pictures(merged), edited)
    if layout != "pixart":
        with pytest.raises(ModelError, match="expected a UNet with cross-attention, got"):
            ATTACKS.make("eviledit").compute(model, REBINDINGS)
