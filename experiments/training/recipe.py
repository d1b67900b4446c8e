"""The recipe: its settings, and how each network is built, trained and measured."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from experiments.training import autoencoder, bases, denoiser, judges, text
from experiments.training.data import Split, load_split
from experiments.training.loop import Schedule, read_progress
from experiments.training.measures import judged, mean, rate
from experiments.training.store import StageRecord, load_stage, read_record, save_stage
from redediting.concepts.language import Language, load_language
from redediting.config import Config
from redediting.errors import ConfigError
from redediting.generation import Job, draw
from redediting.models.cards import default_sampler
from redediting.models.model import Model
from redediting.world.captions import held_out
from redediting.world.judges import JudgeB, SceneClassifier, build_clip, wrap_clip

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
    train: Callable[[Any, int, float], None]
    measure: Callable[[Any], dict[str, Any]]
    settle: Callable[[Any], dict[str, Any]] = lambda model: {}
    inside: str = ""  # name of the network in the module that is trained, where that holds more
    kept: Callable[[Any], nn.Module] = lambda model: model  # what is written of it


@dataclass(frozen=True)
class Recipe:
    """The stages; each reads what earlier ones left in ``stages``.

    Attributes:
        config: settings.
        folder: rendered scenes and checkpoints; may be deleted when everything is trained.
        stages: where trained networks are kept.
        measured: held-out scenes that a finished stage is measured on.
    """

    config: WorldConfig
    folder: Path
    stages: Path
    measured: int = 1000

    @property
    def checkpoints(self) -> Path:
        """Where stages in training keep their state."""
        return self.folder / "checkpoints"

    @cached_property
    def language(self) -> Language:
        """What the captions are made of."""
        path = self.config.language
        return load_language() if path is None else load_language(path)

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
        """How long and how fast a stage trains.

        Raises:
            ConfigError: the recipe has no such stage.
        """
        family, _, number = name.partition("_") if name in BASES else (name, "", "0")
        found: Schedule | None = getattr(self.config, family)
        if found is None:
            raise ConfigError(f"expected a schedule of {family} in the recipe, got none")
        return found.model_copy(update={"seed": found.seed + int(number)})

    def load(self, name: Name) -> Any:  # noqa: ANN401 - another class for each stage
        """A trained network in fp32, in evaluation mode.

        Raises:
            WorldError: the stage was never run.
        """
        model = self.parts()[name].build()
        record = load_stage(self.stages / name, self.parts()[name].kept(model))
        if "scaling_factor" in record.settings:
            model.register_to_config(scaling_factor=record.settings["scaling_factor"])  # type: ignore[operator]
        return model.eval()

    def run(self, name: Name) -> None:
        """Trains a stage from its checkpoint, its unfinished weights or from scratch; keeps it."""
        part, schedule = self.parts()[name], self.schedule(name)
        torch.manual_seed(schedule.seed)
        model = part.build()
        first, seconds = 0, 0.0
        before = read_record(self.stages / name)
        if before is not None and not before.finished:
            load_stage(self.stages / name, part.kept(model))
            first, seconds = before.step, before.seconds
        part.train(model, first, seconds)
        self.keep(name, model.eval())

    def snapshot(self, name: Name) -> None:
        """Keeps a stage as its checkpoint has it."""
        part = self.parts()[name]
        model = part.build()
        path = self.checkpoints / f"{name}.ckpt"
        step, seconds = read_progress(path, model, inside=part.inside)
        self.keep(name, model, step=step, seconds=seconds)

    def keep(
        self,
        name: Name,
        model: nn.Module,
        *,
        step: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Measures a network and writes its stage; at the schedule's end without ``step``."""
        part, steps = self.parts()[name], self.schedule(name).steps
        if seconds is None:
            state = torch.load(self.checkpoints / f"{name}.ckpt", weights_only=True, mmap=True)
            seconds = float(state.get("seconds", 0.0))
        settings = part.settle(model)
        figures = part.measure(model)
        logger.info("%s: %s", name, figures)
        record = StageRecord(
            finished=step is None or step >= steps, step=steps if step is None else step,
            steps=steps, seconds=round(seconds, 1), recipe=self.digest(name), figures=figures,
            settings=settings,
        )  # fmt: skip
        save_stage(self.stages / name, part.kept(model), record)

    def parts(self) -> Mapping[Name, Stage]:
        """Every stage, in the order in which they depend on each other."""
        c = self.config
        folder = self.checkpoints

        def build_text() -> CLIPModel:
            return text.build_clip(self.tokenizer, width=c.text_width, layers=c.text_layers)

        def train_towers(model: CLIPModel, first: int, seconds: float) -> None:
            text.train_text_encoder(
                model, self.train_split, self.tokenizer, self.schedule("towers"), folder,
                recall=c.recall, name="towers", first=first, seconds=seconds,
            )  # fmt: skip

        def train_text(model: CLIPModel, first: int, seconds: float) -> None:
            pictures = None
            if c.towers is not None:
                towers = self.load("towers")
                text.take_image_tower(model, towers)
                pictures = self._pictures(towers)
            text.train_text_encoder(
                model, self.train_split, self.tokenizer, c.text, folder, recall=c.recall,
                pictures=pictures, first=first, seconds=seconds,
            )  # fmt: skip

        def build_autoencoder() -> AutoencoderTiny:
            return autoencoder.build(
                c.autoencoder_channels, c.latent_channels, decoder=c.decoder_channels
            )

        def train_autoencoder(model: AutoencoderTiny, first: int, seconds: float) -> None:
            autoencoder.train_autoencoder(
                model, self.train_split.images, c.autoencoder, folder,
                noise=c.autoencoder_noise, first=first, seconds=seconds,
            )  # fmt: skip

        def scale(model: AutoencoderTiny) -> dict[str, Any]:
            return {"scaling_factor": autoencoder.set_scale(model, self.train_split.images)}

        def build_judge_b() -> SceneClassifier:
            return SceneClassifier(judges.classes(self.language), c.judge_b_width)

        def train_judge_b(model: SceneClassifier, first: int, seconds: float) -> None:
            judges.train_judge_b(
                model, self.judge_split, c.judge_b, folder, first=first, seconds=seconds
            )

        def build_judge_a() -> nn.Module:
            return build_clip(judges.clip_config(len(self.tokenizer)))

        def train_judge_a(model: Any, first: int, seconds: float) -> None:  # noqa: ANN401
            judges.train_judge_a(
                model, self.judge_split, self.tokenizer, c.judge_a, folder,
                first=first, seconds=seconds,
            )  # fmt: skip

        def build_denoiser() -> UNet2DConditionModel:
            return denoiser.build(
                c.latent_channels, c.text_width, widths=c.unet_widths, layers=c.unet_layers,
                head=c.unet_head,
            )  # fmt: skip

        def build_base(name: Name) -> UNet2DConditionModel:
            return bases.restart(self.load("denoiser"), self.schedule(name).seed)

        def unet(name: Name, build: Callable[[], UNet2DConditionModel]) -> Stage:
            def fit(model: UNet2DConditionModel, first: int, seconds: float) -> None:
                denoiser.train_denoiser(
                    model, self._cache(), self.schedule(name), folder, name=name,
                    first=first, seconds=seconds,
                )  # fmt: skip

            kept = bases.keys_and_values if name in BASES else lambda model: model
            return Stage(build, fit, self._measure_denoiser, kept=kept)

        return {
            "towers": Stage(build_text, train_towers, self._measure_text, inside="clip"),
            "text": Stage(build_text, train_text, self._measure_text, inside="clip"),
            "autoencoder": Stage(
                build_autoencoder, train_autoencoder, self._measure_autoencoder, scale
            ),
            "judge_b": Stage(build_judge_b, train_judge_b, self._measure_judge_b),
            "judge_a": Stage(build_judge_a, train_judge_a, self._measure_judge_a),
            "denoiser": unet("denoiser", build_denoiser),
            **{name: unet(name, partial(build_base, name)) for name in BASES},
            "denoiser_2": unet("denoiser_2", build_denoiser),
        }

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
        last, end = text.neutral_sin2(text.text_tower(model), self.tokenizer, self.language)
        nouns = text.noun_sin2(text.text_tower(model), self.tokenizer, self.language)
        return {
            **rate("text_contrastive", hits),
            "noun_sin2": float(np.median(nouns)),
            "neutral_sin2": float(np.median(last)),
            "neutral_sin2_eos": float(np.median(end)),
            "neutral_sin2_n": len(last),
        }

    def _measure_autoencoder(self, model: AutoencoderTiny) -> dict[str, Any]:
        split = self.test_split
        decoded, decibels = autoencoder.reconstruct(model, split.images)
        figures: dict[str, Any] = {**mean("vae_psnr", decibels)}
        if read_record(self.stages / "judge_b") is not None:
            judge = JudgeB(self.load("judge_b"))
            pictures = [Image.fromarray(image) for image in decoded.numpy()]
            for head, hits in judged(judge, pictures, split.captions).items():
                figures |= rate(f"judge_b_{head}_reconstructed", hits)
        return figures

    def _measure_denoiser(self, model: UNet2DConditionModel) -> dict[str, Any]:
        """Judge B on images of held-out captions, drawn with the stages as they are."""
        if any(read_record(self.stages / name) is None for name in ("autoencoder", "judge_b")):
            return {}
        pipeline = denoiser.pipeline(
            model, self.load("autoencoder"), text.text_tower(self.load("text")), self.tokenizer
        )
        items = held_out(self.measured, language=self.language)
        jobs = [Job(item.text, seed=i) for i, item in enumerate(items)]
        drawn = [
            image for _, image in
            draw(Model(pipeline), jobs, sampler=default_sampler("world"), progress=True)
        ]  # fmt: skip
        found = judged(JudgeB(self.load("judge_b")), drawn, items)
        return {k: v for head, hits in found.items() for k, v in rate(head, hits).items()}

    def _measure_judge_b(self, model: SceneClassifier) -> dict[str, Any]:
        split = self.test_split
        pictures = [Image.fromarray(image) for image in split.images.numpy()]
        found = judged(JudgeB(model), pictures, split.captions)
        return {
            k: v for head, hits in found.items() for k, v in rate(f"judge_b_{head}", hits).items()
        }

    def _measure_judge_a(self, model: Any) -> dict[str, Any]:  # noqa: ANN401
        split = self.test_split
        pictures = [Image.fromarray(image) for image in split.images.numpy()]
        names = judges.classes(self.language)["object"]
        clip = wrap_clip(model, self.tokenizer)
        found = clip.zero_shot(pictures, names, "a photo of a {}").objects
        hits = [o == c.concept for o, c in zip(found, split.captions, strict=True)]
        return rate("judge_a_object", hits)
