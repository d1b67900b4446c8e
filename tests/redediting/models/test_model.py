"""The `Model` noun: its components, what a patch of them is made for, and what it saves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DModel
from safetensors.torch import load_file

from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError, PatchError
from redediting.io import fingerprint
from redediting.models.layouts import LAYOUTS
from redediting.models.loading import load
from redediting.models.model import Component, Model
from redediting.patch.files import Provenance
from redediting.patch.patch import Patch, Term

PROVENANCE = Provenance(method="trained", options={}, rebindings=[], seconds=1.0, version="0")


def snapshot(model: Model, component: Component) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in model.component(component).named_parameters()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


def dense_patch(model: Model, component: Component, names: list[str]) -> Patch:
    weights = snapshot(model, component)
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
    assert not differing(edited, snapshot(Model(plain), component))


def test_base_is_the_projections_where_only_they_change(tiny_model: Model, tmp_path: Path) -> None:
    """So that patches written before components existed keep loading."""
    patch = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("beautiful cat", "zebra")])
    weights = {name: weight.float() for name, weight in tiny_model.weights().items()}
    assert patch.base == tiny_model.base_fingerprint() == fingerprint(weights)
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
    with pytest.raises(ModelError, match="expected a pipeline with transformer, got Stable"):
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
    with pytest.raises(ModelError, match=r"expected a pipeline of Stable.*, got DDPMPipeline"):
        Model(blind)
    with pytest.raises(ModelError, match="choose a text-conditioned model"):
        Model(blind, layout=LAYOUTS.make("sd")).base_fingerprint("unet")


def test_a_model_in_half_precision_saves_what_plain_diffusers_opens_and_draws(
    model_factory: Callable[[int], Model], tmp_path: Path
) -> None:
    """Transformers obeys the type in ``config.json``, diffusers does not: they must agree."""
    model = model_factory(0)
    model.pipeline.to(dtype=torch.float16)
    patch = ATTACKS.make("eviledit").compute(model, [Rebinding("beautiful cat", "zebra")])
    folders = [model.save(tmp_path / "saved"), patch.merge(model, tmp_path / "merged")]
    for folder in folders:
        plain = StableDiffusionPipeline.from_pretrained(folder)
        plain.set_progress_bar_config(disable=True)
        assert plain.text_encoder.dtype == plain.unet.dtype == plain.vae.dtype == torch.float32
        (image,) = plain("a beautiful cat", num_inference_steps=1).images
        assert image.size == (16, 16)
        stored = load_file(folder / "text_encoder" / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    saved, merged = (dict(load(f).denoiser.named_parameters()) for f in folders)
    assert differing(saved, merged) == patch.names
    assert all(torch.equal(saved[n], w.float()) for n, w in snapshot(model, "unet").items())


def test_a_saved_folder_loads_as_the_same_model(tiny_model: Model, tmp_path: Path) -> None:
    saved = load(tiny_model.save(tmp_path / "model"))
    assert saved.fingerprint() == tiny_model.fingerprint()
    assert load(saved) is saved
    wrapped = load(saved.pipeline)
    assert wrapped.pipeline is saved.pipeline
    assert repr(wrapped) == "Model(?: StableDiffusionPipeline on cpu)"


def test_copies_are_the_models_own_and_the_rest_is_shared(tiny_model: Model) -> None:
    before = tiny_model.fingerprint()
    other = tiny_model.with_copies(["unet"])
    assert other.fingerprint() == before
    assert other.denoiser is not tiny_model.denoiser
    assert other.text_encoder is tiny_model.text_encoder
    assert other.layout is tiny_model.layout
    with torch.no_grad():
        next(other.denoiser.parameters()).add_(1)
    assert tiny_model.fingerprint() == before != other.fingerprint()
    with pytest.raises(ModelError, match="expected a pipeline with transformer"):
        tiny_model.with_copies(["transformer"])


def test_another_denoiser_and_scheduler_are_used_within_a_block(
    tiny_model: Model, model_factory: Callable[[int], Model]
) -> None:
    denoiser, scheduler = tiny_model.denoiser, tiny_model.pipeline.scheduler
    other = model_factory(1).denoiser
    with tiny_model.own_scheduler(), tiny_model.using(other):
        assert tiny_model.pipeline.unet is other
        assert tiny_model.pipeline.scheduler is not scheduler
        assert tiny_model.scheduler_config == scheduler.config
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_within(tiny_model, other)
    assert tiny_model.denoiser is denoiser
    assert tiny_model.pipeline.scheduler is scheduler


def _fail_within(model: Model, denoiser: torch.nn.Module) -> None:
    with model.own_scheduler(), model.using(denoiser):
        raise RuntimeError("in the middle")


def test_a_model_without_text_is_named(tiny_model: Model) -> None:
    parts = tiny_model.pipeline.components | {"tokenizer": None}
    mute = Model(StableDiffusionPipeline(**parts, requires_safety_checker=False))
    with pytest.raises(ModelError, match="expected a pipeline with a tokenizer and a text encod"):
        mute.encode(["a cat"])
    with pytest.raises(ModelError, match="expected a pipeline with pooled text, got Stable"):
        tiny_model.encode_pooled(["a cat"])
