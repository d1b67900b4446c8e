"""What ships: sizes, layout, and the judges on scenes that nobody trained on."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from redediting import world
from redediting.errors import WorldError
from redediting.world.captions import captions
from redediting.world.judges import DATA, load_judge_a, load_judge_b
from redediting.world.scenes import render

N = 200


@pytest.fixture(scope="module")
def scenes() -> tuple[list[Image.Image], list[str], list[str]]:
    items = list(islice(captions("test", seed=9, single=True), N))
    pictures = [Image.fromarray(render(item.scene, item.seed)) for item in items]
    return pictures, [item.concept for item in items], [item.scene.place for item in items]


def test_weights_are_small_and_no_pickles() -> None:
    files = [path for path in DATA.rglob("*") if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) <= 52 * 2**20
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_plain_diffusers_opens_the_folder() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(world.PIPELINE_DIR, local_files_only=True)
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 64
    assert pipeline.tokenizer.model_max_length == 77


def test_plain_diffusers_draws_the_world_without_any_argument() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(world.PIPELINE_DIR)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a photo of a cat", num_inference_steps=1).images
    assert image.size == (64, 64)
    assert np.asarray(image).std() > 1


def test_judges_know_the_world(scenes: tuple[list[Image.Image], list[str], list[str]]) -> None:
    pictures, concepts, places = scenes
    judge = load_judge_b()
    look = judge.look(pictures)
    assert np.mean(np.array(look.object) == concepts) >= 0.9
    assert np.mean(np.array(look.place) == places) >= 0.9
    found = load_judge_a().zero_shot(pictures, judge.labels, "a photo of a {}").objects
    assert np.mean(np.array(found) == concepts) >= 0.85  # chance is 1/60; measured 0.934


def test_judges_resize_other_pictures(
    scenes: tuple[list[Image.Image], list[str], list[str]],
) -> None:
    pictures, concepts, _ = scenes
    large = [picture.resize((128, 128)) for picture in pictures]
    assert np.mean(np.array(load_judge_b().objects(large)) == concepts) >= 0.85


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"model\.safetensors"):
        load_judge_b(tmp_path)
