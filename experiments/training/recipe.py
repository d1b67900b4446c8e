"""Trains the embedded world, stage by stage, and measures it.

``python -m experiments.training`` runs every stage that is not done yet (checkpoints are in
``runs/world``; a killed run continues), ``--stage NAME`` one of them, ``--check`` measures the
bundled weights and writes their card.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.engine.console import run_main
from experiments.training import autoencoder, denoiser, judges, text
from experiments.training.bundle import save_judge, save_pipeline
from experiments.training.card import write_card
from experiments.training.check import check_world
from experiments.training.data import Split, load_split
from experiments.training.loop import Schedule
from redediting import world
from redediting.config import Config, load_config
from redediting.errors import ConfigError
from redediting.models.cards import default_sampler
from redediting.world.judges import DATA, load_judge_a, load_judge_b

logger = logging.getLogger("experiments.training.recipe")
START = "unet-start"  # weights that the UNet's training sets out from, if there are any
Stage = Literal["restore", "autoencoder", "text", "judge_b", "judge_a", "denoiser", "export"]


class WorldConfig(Config):
    """The recipe of the bundled weights."""

    train_scenes: int
    judge_scenes: int
    tokenizer_merges: int
    text_width: int
    text_layers: int
    latent_channels: int
    autoencoder_channels: int
    autoencoder_noise: float
    unet_widths: tuple[int, ...]
    unet_layers: int
    unet_head: int
    judge_b_width: int
    autoencoder: Schedule
    text: Schedule
    denoiser: Schedule
    judge_b: Schedule
    judge_a: Schedule


@dataclass(frozen=True)
class Recipe:
    """The stages; each reads what earlier ones left in ``folder``."""

    config: WorldConfig
    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Where unfinished stages keep their state."""
        return self.folder / "checkpoints"

    @cached_property
    def train(self) -> Split:
        """The scenes that the model is trained on."""
        return load_split(self.folder / "data", "train", self.config.train_scenes)

    @cached_property
    def judged(self) -> Split:
        """The judges' own scenes."""
        return load_split(self.folder / "data", "judge", self.config.judge_scenes)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The world's tokenizer."""
        return text.build_tokenizer(self.config.tokenizer_merges)

    def run_restore(self) -> None:
        """Takes the bundled weights for a start: frozen parts as they are, the UNet to go on.

        Raises:
            ConfigError: the folder has a checkpoint of the UNet, which would be continued instead.
        """
        if (checkpoint := self.checkpoints / "denoiser.ckpt").is_file():
            raise ConfigError(
                f"expected a folder without a UNet in training, got {str(checkpoint)!r}; continue "
                "it with --stage denoiser, or name another --folder"
            )
        pipeline = world.load().pipeline
        pipeline.vae.save_pretrained(self.folder / "vae")
        pipeline.text_encoder.save_pretrained(self.folder / "text_encoder")
        pipeline.unet.save_pretrained(self.folder / START)

    def run_autoencoder(self) -> None:
        """Trains the autoencoder."""
        c = self.config
        model = autoencoder.train_autoencoder(
            self.train.images, c.autoencoder, self.checkpoints, channels=c.autoencoder_channels,
            latent_channels=c.latent_channels, noise=c.autoencoder_noise,
        )  # fmt: skip
        model.save_pretrained(self.folder / "vae")
        (self.folder / "latents.safetensors").unlink(missing_ok=True)

    def run_text(self) -> None:
        """Trains the text encoder."""
        c = self.config
        model = text.train_text_encoder(
            self.train, self.tokenizer, c.text, self.checkpoints,
            width=c.text_width, layers=c.text_layers,
        )  # fmt: skip
        model.save_pretrained(self.folder / "text_encoder")
        (self.folder / "latents.safetensors").unlink(missing_ok=True)

    def run_judge_b(self) -> None:
        """Trains and ships judge B."""
        c = self.config
        model = judges.train_judge_b(
            self.judged, c.judge_b, self.checkpoints, width=c.judge_b_width
        )
        config = {"classes": model.classes, "width": c.judge_b_width}
        save_judge(DATA / "judge_b", model, config)

    def run_judge_a(self) -> None:
        """Trains and ships judge A."""
        model = judges.train_judge_a(
            self.judged, self.tokenizer, self.config.judge_a, self.checkpoints
        )
        save_judge(DATA / "judge_a", model, judges.clip_config(len(self.tokenizer)))

    def run_denoiser(self) -> None:
        """Trains the UNet on cached latents and text states."""
        c = self.config
        vae = AutoencoderTiny.from_pretrained(self.folder / "vae")
        encoder = CLIPTextModel.from_pretrained(self.folder / "text_encoder")
        path = self.folder / "latents.safetensors"
        if not path.is_file():
            denoiser.cache_latents(self.train, vae, encoder, self.tokenizer).save(path)
        cache = denoiser.Cache.read(path)
        torch.manual_seed(c.denoiser.seed)
        model = denoiser.build(
            c.latent_channels, c.text_width, widths=c.unet_widths, layers=c.unet_layers,
            head=c.unet_head,
        )  # fmt: skip
        if (start := self.folder / START).is_dir():
            model.load_state_dict(UNet2DConditionModel.from_pretrained(start).state_dict())
        logger.info("UNet: %.1f M parameters", sum(p.numel() for p in model.parameters()) / 1e6)
        denoiser.train_denoiser(model, cache, c.denoiser, self.checkpoints)
        model.save_pretrained(self.folder / "unet")

    def run_export(self) -> None:
        """Ships the pipeline."""
        save_pipeline(
            world.PIPELINE_DIR,
            autoencoder=AutoencoderTiny.from_pretrained(self.folder / "vae"),
            encoder=CLIPTextModel.from_pretrained(self.folder / "text_encoder"),
            tokenizer=self.tokenizer,
            denoiser=UNet2DConditionModel.from_pretrained(self.folder / "unet"),
        )

    def stages(self) -> dict[Stage, tuple[Callable[[], None], Path]]:
        """What each stage runs and the file that shows it is done."""
        return {
            "restore": (self.run_restore, Path(__file__)),  # only when asked for
            "autoencoder": (self.run_autoencoder, self.folder / "vae/config.json"),
            "text": (self.run_text, self.folder / "text_encoder/config.json"),
            "judge_b": (self.run_judge_b, DATA / "judge_b/config.json"),
            "judge_a": (self.run_judge_a, DATA / "judge_a/config.json"),
            "denoiser": (self.run_denoiser, self.folder / "unet/config.json"),
            "export": (self.run_export, world.PIPELINE_DIR / "model_index.json"),
        }


@dataclass
class Options:
    """Trains or measures the embedded world."""

    config: Path = Path("configs/world/default.yaml")
    """Recipe."""
    folder: Path = Path("runs/world")
    """Rendered scenes, checkpoints and trained parts."""
    stage: Stage | None = None
    """Run this stage only, also when it is done; ``restore`` sets out from the bundled weights."""
    check: bool = False
    """Measure the bundled weights instead of training."""
    write_card: bool = False
    """With --check: write the figures and a sample sheet beside the weights."""
    n: int = 1000
    """Captions and scenes of the check."""
    json: bool = False
    """Print the figures as one JSON object."""


def run(options: Options) -> int:
    """Runs the command; returns the exit code.

    Raises:
        RedEditingError: bad input, or nothing trained to measure.
    """
    config = load_config(options.config, WorldConfig)
    if options.check:
        figures = check_world(
            world.load(), load_judge_a(), load_judge_b(), n=options.n,
            sampler=default_sampler("world"),
            sheet=DATA / "samples.png" if options.write_card else None,
        )  # fmt: skip
        if options.write_card:
            write_card(figures, config.model_dump(mode="json"))
        lines = [f"{key}: {value}" for key, value in figures.items()]
        sys.stdout.write((json.dumps(figures) if options.json else "\n".join(lines)) + "\n")
        return 0
    recipe = Recipe(config, options.folder)
    for name, (stage, done) in recipe.stages().items():
        if name == options.stage or (options.stage is None and not done.is_file()):
            logger.info("stage %s", name)
            stage()
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_main(lambda: run(tyro.cli(Options)))


if __name__ == "__main__":
    sys.exit(main())
