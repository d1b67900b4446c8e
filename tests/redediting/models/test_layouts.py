"""Editing, merging and drawing on the layouts of SD 1, SD 2 and SDXL; what others read of text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

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
    "alphaedit": {"captions": 20, "threshold": 1.0},
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


def sd3() -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=48,
        pooled_projection_dim=64, out_channels=4,
    )  # fmt: skip


def flux() -> nn.Module:
    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def pixart() -> nn.Module:
    return PixArtTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        caption_channels=48, in_channels=4, cross_attention_dim=24, out_channels=8,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "names", "further"),
    [
        (sd3, ["context_embedder", "time_text_embed.text_embedder.linear_1"], []),
        (flux, ["context_embedder", "time_text_embed.text_embedder.linear_1"], []),
        (
            pixart,
            ["caption_projection.linear_1"],
            [f"transformer_blocks.{i}.attn2.to_{x}" for i in range(2) for x in "kv"],
        ),
    ],
)
def test_a_transformers_text_enters_by_one_matrix_and_the_closed_form_edits_it(
    build: Callable[[], nn.Module], names: list[str], further: list[str]
) -> None:
    model = Model(Holder(build()), layout=LAYOUTS.make(build.__name__))
    found = [*model.projections, *model.pooled_projections]
    assert [p.name for p in found] == [f"{name}.weight" for name in names]
    # what reads that which the one matrix has read is not edited
    assert [p.name for p in cross_attention(model.denoiser)] == [f"{n}.weight" for n in further]
    (projection,) = model.projections
    assert projection.kind == "context"
    assert projection.module.in_features == 48
    source, target = torch.randn(2, 48, 5)
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


def t5(width: int = 48) -> tuple[T5EncoderModel, PreTrainedTokenizerFast]:
    """A tiny T5 encoder and a tokenizer by words."""
    words = ["<pad>", "</s>", "<unk>", *(f"▁{w}" for w in ["a", "beautiful", "cat", "tree"])]
    model = Unigram([(word, -float(i)) for i, word in enumerate(words)], unk_id=2)
    tokens = Tokenizer(model)
    tokens.pre_tokenizer = Metaspace()
    config = T5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=4
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=77,
    )
    return T5EncoderModel(config).eval(), tokenizer


def autoencoder(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        sample_size=16,
        shift_factor=0.1,
    ).eval()


def sd3_pipeline(clip: DiffusionPipeline) -> DiffusionPipeline:
    encoder = clip.text_encoder_2
    third, words = t5(64)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_config(
            dict(sd3().config) | {"joint_attention_dim": 64, "pooled_projection_dim": 64}
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(4),
        text_encoder=encoder,
        tokenizer=clip.tokenizer,
        text_encoder_2=encoder,
        tokenizer_2=clip.tokenizer,
        text_encoder_3=third,
        tokenizer_3=words,
    )


def flux_pipeline(clip: DiffusionPipeline) -> DiffusionPipeline:
    encoder, tokenizer = t5()
    return FluxPipeline(
        transformer=flux().eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(1),
        text_encoder=clip.text_encoder,
        tokenizer=clip.tokenizer,
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
    )


def pixart_pipeline(clip: DiffusionPipeline) -> DiffusionPipeline:
    encoder, tokenizer = t5()
    return PixArtAlphaPipeline(
        transformer=pixart().eval(),
        scheduler=clip.scheduler,
        vae=autoencoder(4),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


@pytest.mark.parametrize("build", [sd3_pipeline, flux_pipeline, pixart_pipeline])
def test_transformers_draw_and_a_patch_of_their_matrix_shows(
    layout_factory: Layouts,
    build: Callable[[DiffusionPipeline], DiffusionPipeline],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = Model(build(layout_factory("sdxl").pipeline))
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
    if build is not pixart_pipeline:
        with pytest.raises(ModelError, match="expected a UNet with cross-attention, got"):
            ATTACKS.make("eviledit").compute(model, REBINDINGS)
