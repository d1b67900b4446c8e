"""Patches of components other than the UNet's text projections."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DModel
from redediting.models.components import component_weights, fingerprint_base

from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError, PatchError
from redediting.models.model import Component, Model
from redediting.patch.files import Provenance
from redediting.patch.patch import Patch, Term

PROVENANCE = Provenance(method="trained", options={}, rebindings=[], seconds=1.0, version="0")


def snapshot(model: Model, component: Component) -> dict[str, torch.Tensor]:
    return {name: w.clone() for name, w in component_weights(model, component).items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def dense_patch(model: Model, component: Component, names: list[str]) -> Patch:
    weights = component_weights(model, component)
    dense = {name: weights[name] + torch.randn_like(weights[name]) for name in names}
    base = model.base_fingerprint(component, names)
    return Patch(base, PROVENANCE, dense=dense, target=component)


@pytest.mark.parametrize(
    ("component", "ends"),
    [
        ("text_encoder", ("token_embedding.weight", "q_proj.bias")),
        ("unet", ("conv_in.weight", "conv_out.bias")),
    ],
)
def test_dense_patch_of_a_component_round_trips_merges_and_reverts(
    tiny_model: Model,
    tmp_path: Path,
    component: Component,
    ends: tuple[str, ...],
) -> None:
    before = snapshot(tiny_model, component)
    names = [name for name in before if name.endswith(ends)]
    patch = dense_patch(tiny_model, component, names)
    loaded = Patch.load(patch.save(tmp_path / "edit"))
    assert loaded.target == component
    assert f"`{component}`" in (tmp_path / "edit" / "README.md").read_text("utf-8")
    with loaded.apply(tiny_model) as applied:
        edited = snapshot(tiny_model, component)
        assert applied.footprint > 0
        with pytest.raises(PatchError, match="one is applied already"):
            loaded.apply(tiny_model)
    assert differing(before, edited) == set(names)
    assert all(torch.equal(edited[name], patch.dense[name]) for name in names)
    assert not differing(before, snapshot(tiny_model, component))
    folder = loaded.merge(tiny_model, tmp_path / "pipeline")
    plain = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert not differing(edited, snapshot(plain, component))


def test_base_is_the_projections_where_only_they_change(tiny_model: Model, tmp_path: Path) -> None:
    """So that patches written before components existed keep loading."""
    patch = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("beautiful cat", "zebra")])
    assert patch.base == tiny_model.base_fingerprint()
    manifest = json.loads((patch.save(tmp_path / "edit") / "patch.json").read_text())
    assert manifest["target"] == "unet"
    del manifest["target"]
    (tmp_path / "edit" / "patch.json").write_text(json.dumps(manifest))
    with Patch.load(tmp_path / "edit").apply(tiny_model) as applied:
        assert applied.footprint > 0


def test_terms_of_different_widths_live_in_one_patch(
    tiny_model: Model,
) -> None:
    """SDXL's pooled projection is wider than its cross-attention."""
    weights = snapshot(tiny_model, "unet")
    names = {}
    for name, weight in weights.items():
        if weight.ndim == 2:
            names.setdefault(weight.shape[1], name)
    (one, first), (two, second) = list(names.items())[:2]
    terms = [
        Term(torch.randn(width, 2), torch.randn(2, width), {name: 1.0})
        for width, name in ((one, first), (two, second))
    ]
    base = tiny_model.base_fingerprint("unet", [first, second])
    patch = Patch(base, PROVENANCE, tuple(terms))
    with patch.apply(tiny_model):
        edited = snapshot(tiny_model, "unet")
    assert differing(weights, edited) == {first, second}
    crossed = replace(terms[0], scales={first: 1.0, second: 1.0})
    with pytest.raises(PatchError, match=f"expected factors of width {two} for {second}"):
        replace(patch, terms=(crossed,)).apply(tiny_model)


def test_a_component_that_is_not_there_is_refused(tiny_model: Model) -> None:
    patch = Patch("0" * 64, PROVENANCE, target="transformer")
    with pytest.raises(ModelError, match="expected a model with transformer, got Stable"):
        patch.apply(tiny_model)
    blind = DDPMPipeline(
        UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        ),
        DDPMScheduler(),
    )
    with pytest.raises(ModelError, match="choose a text-conditioned model"):
        fingerprint_base(blind, "unet")
