"""The `Model` noun: a loaded pipeline, its layout, and text that is encoded once."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.io import fingerprint
from redediting.models.cards import ModelCard
from redediting.models.layouts import layout_of
from redediting.models.layouts.base import Layout
from redediting.models.projections import Projection, projection_weights
from redediting.models.sampler import Sampler
from redediting.text.cache import StateCache, state_key
from redediting.text.encoding import TextStates, encode, prompt_lengths
from redediting.threads import all_threads

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedTokenizerBase

Component = Literal["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"]


class Model:
    """A text-to-image model: what an edit reads and changes, whatever its architecture.

    Prompts are encoded by the pipeline's own ``encode_prompt``; their states are kept for as long
    as the text encoders do not change.

    Attributes:
        pipeline: the diffusers pipeline; drawing goes through it.
        layout: its architecture.
        name: as it was asked for; empty for a pipeline that was handed over.
        card: what is known of it by name.

    Example:
        >>> import redediting as rd
        >>> model = rd.load("world")
        >>> len(model.projections), model.width
        (14, 256)
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        *,
        name: str = "",
        card: ModelCard | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.pipeline: Any = pipeline
        self.layout = layout or layout_of(pipeline)
        self.name = name
        self.card = card
        self._cache = StateCache()

    def __repr__(self) -> str:
        return f"Model({self.name or '?'}: {type(self.pipeline).__name__} on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the pipeline is."""
        return self.pipeline.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the denoiser."""
        return next(self.denoiser.parameters()).dtype

    @property
    def sampler(self) -> Sampler:
        """Default sampler: the card's, or the general one."""
        return self.card.sampler if self.card else Sampler()

    @property
    def denoiser(self) -> Any:  # noqa: ANN401 - a UNet or a transformer, opaque to the checker
        """The network that draws."""
        return self.component(self.layout.denoiser)

    @property
    def projections(self) -> list[Projection]:
        """The matrices that read token states."""
        return self.layout.token_projections(self.denoiser)

    @property
    def pooled_projections(self) -> list[Projection]:
        """The matrices that read the pooled text, if any."""
        return self.layout.pooled_projections(self.denoiser)

    @property
    def width(self) -> int:
        """``d``, width of a token state."""
        return self.projections[0].module.in_features

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The first tokenizer."""
        found = getattr(self.pipeline, "tokenizer", None)
        if found is None or getattr(self.pipeline, "text_encoder", None) is None:
            raise ModelError(
                "expected a pipeline with a tokenizer and a text encoder, got "
                f"{type(self.pipeline).__name__} without; choose a text-to-image model"
            )
        return found

    @property
    def text_encoder(self) -> Any:  # noqa: ANN401 - opaque to the checker
        """The first text encoder."""
        return self.component("text_encoder")

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """Every text encoder by component: SDXL has two, SD 3 three."""
        parts = self.pipeline.components
        names = sorted(name for name in parts if name.startswith("text_encoder"))
        return {name: parts[name] for name in names if isinstance(parts[name], nn.Module)}

    @property
    def scheduler_config(self) -> Any:  # noqa: ANN401 - diffusers' frozen dictionary
        """Settings of the noise schedule."""
        return self.pipeline.scheduler.config

    def component(self, name: str) -> nn.Module:
        """A network of the pipeline by name; `ModelError` where it has none."""
        module = getattr(self.pipeline, name, None)
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"expected a pipeline with {name}, got {type(self.pipeline).__name__} without; "
                "choose a model of the layout that is asked for"
            )
        return module

    def weights(self) -> dict[str, Tensor]:
        """The projections that read token states, by name; they share the model's memory."""
        return projection_weights(self.projections)

    def encode(self, prompts: Sequence[str], *, batch_size: int = 16) -> TextStates:
        """Token states of prompts, without gradients; ``batch_size`` has no influence on them.

        `PromptError` for no prompts, or one with more tokens than the encoder takes.
        """
        parts = self.pipeline.components.items()
        tokenizers = [t for name, t in parts if name.startswith("tokenizer") and t is not None]

        def run(batch: list[str]) -> Tensor:
            return self._encoded(batch)[0].cpu()

        cache = self._cache.valid_for(state_key(self.text_encoders.values(), tokenizers))
        return encode(self.tokenizer, run, prompts, cache=cache, batch_size=batch_size)

    def encode_pooled(self, prompts: Sequence[str]) -> Tensor:
        """Pooled text of prompts, one column each, shape ``(d, n)``, fp64, on the CPU."""
        place = self.layout.pooled_output
        if place is None:
            raise ModelError(
                f"expected a pipeline with pooled text, got {type(self.pipeline).__name__} "
                "without; choose an SDXL model"
            )
        prompt_lengths(self.tokenizer, prompts)
        distinct = list(dict.fromkeys(prompts))
        starts = range(0, len(distinct), 64)
        found = [self._encoded(distinct[i : i + 64])[place].double().cpu() for i in starts]
        row = {prompt: i for i, prompt in enumerate(distinct)}
        return torch.cat(found)[[row[prompt] for prompt in prompts]].T

    def forget(self) -> None:
        """Drops the states that are kept, e.g. before an edit is timed on its own."""
        self._cache.rows.clear()

    def fingerprint(self) -> str:
        """One fingerprint of everything that an image depends on.

        That is the weights of every network, the settings of networks and scheduler, the
        tokenizer's vocabulary. An applied patch changes it, its revert restores it, saving and
        loading keep it; `redediting.generation.ImageStore` keys its images with it.
        """
        from diffusers import ConfigMixin
        from transformers import PreTrainedTokenizerBase

        parts: dict[str, dict[str, Any]] = {}
        for name, component in self.pipeline.components.items():
            part = parts[name] = {"class": type(component).__name__}
            if isinstance(component, nn.Module):
                part["weights"] = fingerprint(component.state_dict())
            if isinstance(component, ConfigMixin):
                config = component.config.items()
                part["config"] = {key: value for key, value in config if not key.startswith("_")}
            if isinstance(component, PreTrainedTokenizerBase):
                part["vocabulary"] = component.get_vocab()
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def base_fingerprint(self, component: str = "", names: Iterable[str] = ()) -> str:
        """SHA-256 of what a patch of a component (the denoiser by default) is for, read as fp32.

        That is the component's anchor together with every other named parameter that it has. The
        anchor of a denoiser is its text projections; that of a text encoder, all its weights.
        """
        component = component or self.layout.denoiser
        weights = {n: p.detach() for n, p in self.component(component).named_parameters()}
        anchor = self.weights() if component == self.layout.denoiser else dict(weights)
        anchor |= {name: weights[name] for name in names if name in weights}
        return fingerprint({name: weight.cpu().float() for name, weight in anchor.items()})

    def with_copies(self, components: Iterable[str]) -> Model:
        """A model of its own that shares all but the named components, of which it has copies."""
        parts = dict(self.pipeline.components)
        for name in components:
            parts[name] = copy.deepcopy(self.component(name))
        if "safety_checker" in parts:
            parts["requires_safety_checker"] = False
        with quiet():
            pipeline = type(self.pipeline)(**parts)
        return Model(pipeline, name=self.name, card=self.card, layout=self.layout)

    @contextmanager
    def using(self, denoiser: nn.Module) -> Iterator[None]:
        """Draws with another denoiser of the same architecture until the block ends."""
        before = self.denoiser
        try:
            setattr(self.pipeline, self.layout.denoiser, denoiser)
            yield
        finally:
            setattr(self.pipeline, self.layout.denoiser, before)

    @contextmanager
    def own_scheduler(self) -> Iterator[None]:
        """Draws within the block with a copy of the scheduler, which keeps no trace of it."""
        before = self.pipeline.scheduler
        self.pipeline.set_progress_bar_config(disable=True)
        try:
            self.pipeline.scheduler = self.new_scheduler()
            yield
        finally:
            self.pipeline.scheduler = before

    def save(self, folder: str | Path) -> Path:
        """Writes a pipeline folder that plain diffusers opens without any argument.

        transformers loads weights in the type that a component's ``config.json`` names, diffusers
        in float32: a pipeline that says two types does not draw. All components are saved in one
        type; where that is a half-precision one, ``config.json`` says float32, as diffusers reads
        the rest.
        """
        folder = Path(folder)
        self.pipeline.save_pretrained(folder, safe_serialization=True)
        for path in folder.glob("*/config.json"):
            config = json.loads(path.read_text("utf-8"))
            changed = {key: "float32" for key in ("dtype", "torch_dtype") if key in config}
            if changed:
                path.write_text(json.dumps(config | changed, indent=2) + "\n", "utf-8")
        return folder

    def _encoded(self, prompts: list[str]) -> Sequence[Tensor]:
        with torch.no_grad(), all_threads():
            found: Sequence[Tensor] = self.pipeline.encode_prompt(
                prompt=prompts,
                device=self.text_encoder.device,
                num_images_per_prompt=1,
                **self.layout.encode_options,
            )
        return found

    @property
    def vae_scale(self) -> int:
        """Pixels a latent stands for, along a side."""
        return int(self.pipeline.vae_scale_factor)

    def new_scheduler(self) -> Any:  # noqa: ANN401 - opaque to the checker
        """A fresh scheduler with the pipeline's settings."""
        scheduler = self.pipeline.scheduler
        return type(scheduler).from_config(scheduler.config)

    def image_size(self, sampler: Sampler) -> tuple[int, int]:
        """(height, width) in pixels: the sampler's, or denoiser sample size x VAE factor."""
        size = self.denoiser.config.sample_size
        rows, columns = (size, size) if isinstance(size, int) else size
        return sampler.height or rows * self.vae_scale, sampler.width or columns * self.vae_scale


def as_model(given: object) -> Model:
    """A loaded model as it is; `ModelError` for anything else."""
    if not isinstance(given, Model):
        name = repr(given) if isinstance(given, str) else "…"
        raise ModelError(f"expected a loaded model, got {given!r}; load it first: rd.load({name})")
    return given


@contextmanager
def quiet() -> Iterator[None]:
    """Hides progress bars and warnings of diffusers and transformers: a sweep loads often."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = (diffusers_logging, transformers_logging)
    before = [(logger.is_progress_bar_enabled(), logger.get_verbosity()) for logger in loggers]
    try:
        for logger in loggers:
            logger.disable_progress_bar()
            logger.set_verbosity_error()
        yield
    finally:
        for logger, (bar, verbosity) in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bar:
                logger.enable_progress_bar()
