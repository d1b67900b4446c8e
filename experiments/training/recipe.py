"""The recipe: its settings, and how each network is built, trained and measured."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import open_clip
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from experiments.training import autoencoder, bases, denoiser, judges, text
from experiments.training.check import judged, mean, rate, rates, text_angles
from experiments.training.data import Split, load_split
from experiments.training.loop import Fit, Schedule, read_progress
from experiments.training.store import StageRecord, load_stage, read_record, save_stage
from redediting.concepts.language import SHIPPED, Language, load_language
from redediting.config import Config
from redediting.errors import ConfigError
from redediting.generation import Job, draw
from redediting.models.cards import default_sampler
from redediting.models.model import Model
from redediting.world.captions import held_out
from redediting.world.judges import JudgeB, SceneClassifier, wrap_clip

logger = logging.getLogger(__name__)
Name = Literal[
    "towers", "text", "autoencoder", "judge_b", "judge_a", "denoiser",
    "kv_1", "kv_2", "kv_3", "kv_4", "kv_5", "denoiser_2",
]  # fmt: skip
BASES: tuple[Name, ...] = ("kv_1", "kv_2", "kv_3", "kv_4", "kv_5")


class WorldConfig(Config):
    """The recipe of an edition's weights.

    With ``towers``, a CLIP is trained first, and the text tower that ships is trained anew
    against its frozen image tower. With ``kv``, five more bases are trained (`BASES`), with
    ``denoiser_2`` a second UNet; seeds are the schedule's, a base's plus its number.
    """

    language: Path | None = None
    train_scenes: int
    judge_scenes: int
    tokenizer_merges: int
    text_width: int
    text_layers: int
    recall: text.Recall = text.Recall()
    latent_channels: int
    autoencoder_channels: int
    decoder_channels: int | None = None
    autoencoder_noise: float
    unet_widths: tuple[int, ...]
    unet_layers: int
    unet_head: int
    judge_b_width: int
    autoencoder: Schedule
    towers: Schedule | None = None
    text: Schedule
    denoiser: Schedule
    judge_b: Schedule
    judge_a: Schedule
    kv: Schedule | None = None
    denoiser_2: Schedule | None = None


@dataclass(frozen=True)
class Stage:
    """How one network comes about."""

    build: Callable[[], nn.Module]
    train: Callable[[Any, Fit], None]
    measure: Callable[[Any], dict[str, Any]]
    settle: Callable[[Any], dict[str, Any]] = lambda model: {}
    inside: str = ""  # name of the network in the module that is trained, where that holds more
    kept: Callable[[Any], nn.Module] = lambda model: model  # what is written of it


@dataclass(frozen=True)
class Recipe:
    """The stages; each reads what earlier ones left in ``stages``."""

    config: WorldConfig
    folder: Path  # scenes and checkpoints; may be deleted when everything is trained
    stages: Path  # trained networks
    measured: int = 1000  # held-out scenes that a finished stage is measured on

    @property
    def checkpoints(self) -> Path:
        """Where stages in training keep their state."""
        return self.folder / "checkpoints"

    @cached_property
    def language(self) -> Language:
        """What the captions are made of."""
        return load_language(self.config.language or SHIPPED)

    @cached_property
    def train_split(self) -> Split:
        """The scenes that the model is trained on."""
        return self._split("train", self.config.train_scenes)

    @cached_property
    def judge_split(self) -> Split:
        """The judges' own scenes."""
        return self._split("judge", self.config.judge_scenes)

    @cached_property
    def test_split(self) -> Split:
        """Single-object scenes that nobody is trained on."""
        return self._split("test", self.measured, single=True)

    def _split(self, name: str, n: int, *, single: bool = False) -> Split:
        return load_split(self.folder / "data", name, n, single=single, language=self.language)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The world's tokenizer."""
        return text.build_tokenizer(self.config.tokenizer_merges)

    def digest(self, name: Name) -> str:
        """SHA-256 (16 digits) of a stage's schedule, all sizes and the language."""
        settings = self.config.model_dump(mode="json", exclude={"language"})
        schedules = {"kv", *get_args(Name)}
        own = "kv" if name in BASES else name
        kept = {key: settings[key] for key in settings if key == own or key not in schedules}
        kept["language"] = self.language.model_dump(mode="json")
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    def schedule(self, name: Name) -> Schedule:
        """How long and how fast a stage trains; `ConfigError` where the recipe lacks it."""
        family, _, number = name.partition("_") if name in BASES else (name, "", "0")
        found: Schedule | None = getattr(self.config, family)
        if found is None:
            raise ConfigError(f"expected a schedule of {family} in the recipe, got none")
        return found.model_copy(update={"seed": found.seed + int(number)})

    def load(self, name: Name) -> Any:  # noqa: ANN401 - another class for each stage
        """A trained network in fp32, in evaluation mode."""
        model = self.parts()[name].build()
        record = load_stage(self.stages / name, self.parts()[name].kept(model))
        if "scaling_factor" in record.settings:
            model.register_to_config(scaling_factor=record.settings["scaling_factor"])  # type: ignore[operator]
        return model.eval()

    def run(self, name: Name) -> None:
        """Trains a stage from its checkpoint, its unfinished weights or from scratch; keeps it."""
        part, fit = self.parts()[name], Fit(self.schedule(name), self.checkpoints, name)
        torch.manual_seed(fit.schedule.seed)
        model = part.build()
        before = read_record(self.stages / name)
        if before is not None and not before.finished:
            load_stage(self.stages / name, part.kept(model))
            fit = replace(fit, first=before.step, seconds=before.seconds)
        part.train(model, fit)
        state = torch.load(fit.checkpoint, weights_only=True, mmap=True)
        self._keep(name, model.eval(), fit.schedule.steps, float(state.get("seconds", 0.0)))

    def snapshot(self, name: Name) -> None:
        """Keeps a stage as its checkpoint has it."""
        part = self.parts()[name]
        model = part.build()
        path = self.checkpoints / f"{name}.ckpt"
        self._keep(name, model, *read_progress(path, model, inside=part.inside))

    def _keep(self, name: Name, model: nn.Module, step: int, seconds: float) -> None:
        """Measures a network and writes its stage."""
        part, steps = self.parts()[name], self.schedule(name).steps
        settings = part.settle(model)
        figures = part.measure(model)
        logger.info("%s: %s", name, figures)
        record = StageRecord(
            finished=step >= steps, step=step, steps=steps, seconds=round(seconds, 1),
            recipe=self.digest(name), figures=figures, settings=settings,
        )  # fmt: skip
        save_stage(self.stages / name, part.kept(model), record)

    def parts(self) -> Mapping[Name, Stage]:
        """Every stage, in the order in which they depend on each other."""
        c = self.config

        def build_text() -> CLIPModel:
            return text.build_clip(self.tokenizer, width=c.text_width, layers=c.text_layers)

        def train_text(model: CLIPModel, fit: Fit) -> None:
            pictures = None
            if fit.name == "text" and c.towers is not None:
                towers = self.load("towers")
                text.take_image_tower(model, towers)
                pictures = self._pictures(towers)
            split, recall = self.train_split, c.recall
            text.train_text_encoder(
                model, split, self.tokenizer, fit, recall=recall, pictures=pictures
            )

        def build_autoencoder() -> AutoencoderTiny:
            channels, decoder = c.autoencoder_channels, c.decoder_channels
            return autoencoder.build(channels, c.latent_channels, decoder=decoder)

        def train_autoencoder(model: AutoencoderTiny, fit: Fit) -> None:
            images, noise = self.train_split.images, c.autoencoder_noise
            autoencoder.train_autoencoder(model, images, fit, noise=noise)

        def scale(model: AutoencoderTiny) -> dict[str, Any]:
            return {"scaling_factor": autoencoder.set_scale(model, self.train_split.images)}

        def build_denoiser() -> UNet2DConditionModel:
            z, d, widths = c.latent_channels, c.text_width, c.unet_widths
            return denoiser.build(z, d, widths=widths, layers=c.unet_layers, head=c.unet_head)

        def build_base(name: Name) -> UNet2DConditionModel:
            return bases.restart(self.load("denoiser"), self.schedule(name).seed)

        def train_unet(model: UNet2DConditionModel, fit: Fit) -> None:
            denoiser.train_denoiser(model, self._cache(), fit)

        unet = partial(Stage, train=train_unet, measure=self._measure_denoiser)

        return {
            "towers": Stage(build_text, train_text, self._measure_text, inside="clip"),
            "text": Stage(build_text, train_text, self._measure_text, inside="clip"),
            "autoencoder": Stage(
                build_autoencoder, train_autoencoder, self._measure_autoencoder, scale
            ),
            "judge_b": Stage(
                lambda: SceneClassifier(judges.classes(self.language), c.judge_b_width),
                lambda model, fit: judges.train_judge_b(model, self.judge_split, fit),
                self._measure_judge_b,
            ),
            "judge_a": Stage(
                lambda: open_clip.CLIP(**judges.clip_config(len(self.tokenizer))),
                lambda m, fit: judges.train_judge_a(m, self.judge_split, self.tokenizer, fit),
                self._measure_judge_a,
            ),
            "denoiser": unet(build_denoiser),
            **{name: unet(partial(build_base, name), kept=bases.keys_and_values)
               for name in BASES},
            "denoiser_2": unet(build_denoiser),
        }  # fmt: skip

    def _pictures(self, towers: CLIPModel) -> torch.Tensor:
        """The training scenes as the image tower sees them, kept on disk."""
        stamp = hashlib.sha256(repr(read_record(self.stages / "towers")).encode()).hexdigest()
        path = self.folder / f"pictures-{stamp[:12]}.safetensors"
        if not path.is_file():
            save_file({"pictures": text.embed_pictures(towers, self.train_split.images)}, path)
        return load_file(path)["pictures"]

    def _cache(self) -> denoiser.Cache:
        """Latents and text states of the training scenes by the stages as they are."""
        records = [read_record(self.stages / name) for name in ("autoencoder", "text")]
        stamp = hashlib.sha256(repr(records).encode()).hexdigest()[:12]
        path = self.folder / f"latents-{stamp}.safetensors"
        if not path.is_file():
            encoder = text.text_tower(self.load("text"))
            denoiser.cache_latents(
                self.train_split, self.load("autoencoder"), encoder, self.tokenizer
            ).save(path)
        return denoiser.Cache.read(path)

    def _measure_text(self, model: CLIPModel) -> dict[str, Any]:
        hits = text.contrastive_accuracy(model, self.tokenizer, self.test_split)
        return rate("text_contrastive", hits) | text_angles(
            text.text_tower(model), self.tokenizer, self.language
        )

    def _measure_autoencoder(self, model: AutoencoderTiny) -> dict[str, Any]:
        decoded, decibels = autoencoder.reconstruct(model, self.test_split.images)
        figures = mean("vae_psnr", decibels)
        if read_record(self.stages / "judge_b") is not None:
            found = judged(JudgeB(self.load("judge_b")), decoded, self.test_split.captions)
            figures |= rates(found, "judge_b_{}_reconstructed")
        return figures

    def _measure_denoiser(self, model: UNet2DConditionModel) -> dict[str, Any]:
        """Judge B on images of held-out captions, drawn with the stages as they are."""
        if any(read_record(self.stages / name) is None for name in ("autoencoder", "judge_b")):
            return {}
        encoder = text.text_tower(self.load("text"))
        whole = denoiser.pipeline(model, self.load("autoencoder"), encoder, self.tokenizer)
        items = held_out(self.measured, language=self.language)
        jobs = [Job(item.text, seed=i) for i, item in enumerate(items)]
        drawn = draw(Model(whole), jobs, sampler=default_sampler("world"), progress=True)
        return rates(judged(JudgeB(self.load("judge_b")), [image for _, image in drawn], items))

    def _measure_judge_b(self, model: SceneClassifier) -> dict[str, Any]:
        split = self.test_split
        return rates(judged(JudgeB(model), split.images, split.captions), "judge_b_{}")

    def _measure_judge_a(self, model: Any) -> dict[str, Any]:  # noqa: ANN401
        split, names = self.test_split, judges.classes(self.language)["object"]
        pictures = [Image.fromarray(image) for image in split.images.numpy()]
        clip = wrap_clip(model, self.tokenizer)
        found = clip.zero_shot(pictures, names, "a photo of a {}").objects
        hits = [o == c.concept for o, c in zip(found, split.captions, strict=True)]
        return rate("judge_a_object", hits)
