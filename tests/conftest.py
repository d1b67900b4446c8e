"""Shared fixtures: the real pipeline classes at a size that runs in milliseconds."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import redediting  # first: makes torchvision importable
from redediting.models.model import Model

# isort: split
import jaxtyping
import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

_CHECKED = ["kernel", "problem", "multiplier", "solver", "certificate", "isolation", "diagnostics"]
_CHECKED += ["layers", "equivalence", "selection"]
jaxtyping.install_import_hook(
    [f"{redediting.__name__}.algebra.{name}" for name in _CHECKED], "beartype.beartype"
)

MERGES = 400  # enough for "cat", "photo", …; rarer words are spelt in pieces
WIDTH = 32


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDEDITING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_tokenizer() -> CLIPTokenizer:
    """The CLIP byte-pair tokenizer cut to a few hundred merges, 77 positions."""
    folder = Path(open_clip.__file__).parent
    lines = gzip.decompress((folder / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    merges = [tuple(line.split()) for line in lines.splitlines()[1 : MERGES + 1]]
    alphabet = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def make_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A random Stable Diffusion pipeline: 32-wide text, 16-pixel images."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    text_encoder = _encoder(CLIPTextModel, tokenizer, WIDTH)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=16,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def pipeline_factory() -> Callable[[int], StableDiffusionPipeline]:
    return make_pipeline


@pytest.fixture(scope="session")
def model_factory() -> Callable[[int], Model]:
    """Tiny random Stable Diffusion models by seed."""
    return lambda seed=0: Model(make_pipeline(seed), name="tiny")


@pytest.fixture(scope="session")
def _session_model() -> Model:
    return Model(make_pipeline(), name="tiny")


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ViT with ImageNet's 1,000 classes, as transformers saves one."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, id2label=dict(enumerate(open_clip.IMAGENET_CLASSNAMES)),
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(_session_model: Model) -> Iterator[Model]:
    """A tiny random Stable Diffusion model, the same weights in every test."""
    saved = {
        component: {
            name: t.clone() for name, t in _session_model.component(component).state_dict().items()
        }
        for component in ("unet", "text_encoder", "vae")
    }
    yield _session_model
    for component, state in saved.items():
        _session_model.component(component).load_state_dict(state)


def _encoder(kind: type, tokenizer: CLIPTokenizer, width: int, **more: object) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=width,
        initializer_factor=5.0,
        **more,
    )
    return kind(config).eval()


def make_sd2(seed: int = 0) -> StableDiffusionPipeline:
    """As `make_pipeline`, but as SD 2: "!" pads, linear projections, twice the text width."""
    torch.manual_seed(seed)
    base = make_pipeline(seed)
    tokenizer = CLIPTokenizer(
        vocab=base.tokenizer.get_vocab(),
        merges=[tuple(pair) for pair in _merges()],
        model_max_length=77,
        pad_token="!",
    )
    unet = UNet2DConditionModel.from_config(
        dict(base.unet.config) | {"cross_attention_dim": 64, "use_linear_projection": True}
    )
    parts = base.components | {
        "tokenizer": tokenizer,
        "text_encoder": _encoder(CLIPTextModel, tokenizer, 64, hidden_act="gelu"),
        "unet": unet.eval(),
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_sdxl(seed: int = 0) -> StableDiffusionXLPipeline:
    """A tiny SDXL: two text encoders side by side (32 + 32), pooled text of the second."""
    torch.manual_seed(seed)
    base = make_pipeline(seed)
    tokenizer = base.tokenizer
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH,
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=_encoder(CLIPTextModel, tokenizer, WIDTH),
        text_encoder_2=_encoder(CLIPTextModelWithProjection, tokenizer, WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.eval(),
        scheduler=base.scheduler,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _sd3() -> torch.nn.Module:
    return SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=48,
        pooled_projection_dim=64, out_channels=4,
    )  # fmt: skip


def _flux() -> torch.nn.Module:
    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def _pixart() -> torch.nn.Module:
    return PixArtTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        caption_channels=48, in_channels=4, cross_attention_dim=24, out_channels=8,
    )  # fmt: skip


def _t5(width: int = 48) -> tuple[T5EncoderModel, PreTrainedTokenizerFast]:
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


def _autoencoder(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        sample_size=16,
        shift_factor=0.1,
    ).eval()


def make_sd3(seed: int = 0) -> DiffusionPipeline:
    """A tiny SD 3."""
    clip = make_sdxl(seed)
    encoder = clip.text_encoder_2
    third, words = _t5(64)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_config(
            dict(_sd3().config) | {"joint_attention_dim": 64, "pooled_projection_dim": 64}
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(4),
        text_encoder=encoder,
        tokenizer=clip.tokenizer,
        text_encoder_2=encoder,
        tokenizer_2=clip.tokenizer,
        text_encoder_3=third,
        tokenizer_3=words,
    )


def make_flux(seed: int = 0) -> DiffusionPipeline:
    """A tiny FLUX."""
    clip = make_sdxl(seed)
    encoder, tokenizer = _t5()
    return FluxPipeline(
        transformer=_flux().eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(1),
        text_encoder=clip.text_encoder,
        tokenizer=clip.tokenizer,
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
    )


def make_pixart(seed: int = 0) -> DiffusionPipeline:
    """A tiny PixArt."""
    clip = make_sdxl(seed)
    encoder, tokenizer = _t5()
    return PixArtAlphaPipeline(
        transformer=_pixart().eval(),
        scheduler=clip.scheduler,
        vae=_autoencoder(4),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _merges() -> list[list[str]]:
    folder = Path(open_clip.__file__).parent
    lines = gzip.decompress((folder / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    return [line.split() for line in lines.splitlines()[1 : MERGES + 1]]


LAYOUTS = {
    "sd1": make_pipeline, "sd2": make_sd2, "sdxl": make_sdxl,
    "sd3": make_sd3, "flux": make_flux, "pixart": make_pixart,
}  # fmt: skip


@pytest.fixture(scope="session")
def layout_factory() -> Callable[[str], Model]:
    """Tiny random models by layout: sd1, sd2, sdxl, sd3, flux, pixart."""
    return lambda layout, seed=0: Model(LAYOUTS[layout](seed), name=layout)
