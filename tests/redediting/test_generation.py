"""What an image may depend on, and what a store draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from redediting.errors import ConfigError, ModelError, OutputError, PromptError
from redediting.generation import ImageStore, Job, draw, process_state
from redediting.models.model import Model
from redediting.models.sampler import Sampler

SAMPLER = Sampler(steps=3, batch_size=4)
JOBS = [
    Job("a photo of a cat", 0),
    Job("a photo of a cat", 1),
    Job("a zebra on the beach", 1),
    Job("", 2),
    Job("a photo of a cat", 3),
]
TESTS = Path(__file__).parents[1]


class CountingPipeline(StableDiffusionPipeline):
    """The real pipeline, which remembers the size of each batch and can be made to stop."""

    calls: list[int]
    encoded: list[str]
    stop_after: int | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(len(options["generator"]))
        return super().__call__(*args, **options)

    def encode_prompt(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        self.encoded.extend(options.get("prompt") or ())
        return super().encode_prompt(*args, **options)


@pytest.fixture
def counting(tiny_model: Model) -> Model:
    pipeline = CountingPipeline(**tiny_model.pipeline.components, requires_safety_checker=False)
    pipeline.calls, pipeline.encoded = [], []
    return Model(pipeline)


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image, dtype=np.int64)


def drawn(
    model: Model, jobs: list[Job], sampler: Sampler = SAMPLER
) -> dict[Job, NDArray[np.int64]]:
    return {job: pixels(image) for job, image in draw(model, jobs, sampler=sampler)}


def gap(one: dict[Job, NDArray[np.int64]], two: dict[Job, NDArray[np.int64]]) -> int:
    """Largest difference of a pixel, in levels of 255."""
    assert one.keys() == two.keys()
    return max(int(np.abs(one[job] - two[job]).max()) for job in one)


def test_images_come_in_order_and_differ(tiny_model: Model) -> None:
    jobs = [job for job, _ in draw(tiny_model, JOBS, sampler=SAMPLER)]
    assert jobs == JOBS
    images = drawn(tiny_model, JOBS)
    assert {image.shape for image in images.values()} == {(16, 16, 3)}
    assert np.abs(images[JOBS[0]] - images[JOBS[1]]).mean() > 5  # other noise
    assert np.abs(images[JOBS[1]] - images[JOBS[2]]).max() > 1  # same noise, other prompt


def test_batching_and_order_change_float_noise_only(
    tiny_model: Model,
) -> None:
    reference = drawn(tiny_model, JOBS)
    for batch_size in (1, 2, 64):
        sampler = SAMPLER.model_copy(update={"batch_size": batch_size})
        assert gap(drawn(tiny_model, JOBS, sampler), reference) <= 1
    assert gap(drawn(tiny_model, JOBS[::-1]), reference) <= 1


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_an_image_is_what_plain_diffusers_draws(tiny_model: Model, guidance: float) -> None:
    sampler = SAMPLER.model_copy(update={"guidance": guidance})
    plain = {
        job: pixels(
            tiny_model.pipeline(
                job.prompt,
                num_inference_steps=3,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(job.seed),
            ).images[0]
        )
        for job in JOBS
    }
    assert gap(drawn(tiny_model, JOBS, sampler), plain) <= 1


def test_autocast_stays_near_and_the_size_is_obeyed(
    tiny_model: Model,
) -> None:
    reference = drawn(tiny_model, JOBS)
    half = drawn(tiny_model, JOBS, SAMPLER.model_copy(update={"autocast": "bf16"}))
    assert 0 < gap(half, reference) <= 25
    wide = Sampler(steps=1, height=16, width=32)
    assert drawn(tiny_model, JOBS[:1], wide)[JOBS[0]].shape == (16, 32, 3)
    assert tiny_model.image_size(wide) == (16, 32)
    assert tiny_model.image_size(SAMPLER) == (16, 16)


def test_each_distinct_prompt_is_encoded_once(counting: Model) -> None:
    drawn(counting, JOBS * 3, SAMPLER)
    # __call__ asks encode_prompt again with ready states and without a prompt
    assert sorted(counting.pipeline.encoded) == ["", "a photo of a cat", "a zebra on the beach"]
    assert counting.pipeline.calls == [4, 4, 4, 3]


def test_a_prompt_that_would_be_cut_draws_nothing(counting: Model, tmp_path: Path) -> None:
    long = Job("cat " * 100, 0)
    with pytest.raises(PromptError, match="77 tokens, got 202"):
        ImageStore(tmp_path, "w", SAMPLER).images([*JOBS, long], counting)
    assert counting.pipeline.calls == []
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_pipeline_is_named(tiny_model: Model) -> None:
    other = StableDiffusionImg2ImgPipeline(
        **tiny_model.pipeline.components, requires_safety_checker=False
    )
    with pytest.raises(ModelError, match="got StableDiffusionImg2ImgPipeline"):
        Model(other)


@pytest.mark.parametrize(
    "option", [{"steps": 0}, {"guidance": 0.5}, {"batch_size": 0}, {"autocast": "fp8"}, {"eta": 1}]
)
def test_a_sampler_out_of_range_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        Sampler(**option)


def test_store_draws_what_is_missing_and_keeps_order(counting: Model, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", "w", SAMPLER)
    first = store.images(JOBS[1:3], counting)
    assert counting.pipeline.calls == [2]
    asked = [JOBS[4], JOBS[1], JOBS[4], JOBS[0], JOBS[3]]
    images = store.images(asked, counting)
    assert counting.pipeline.calls == [2, 3]
    assert np.array_equal(pixels(images[1]), pixels(first[0]))
    assert np.array_equal(pixels(images[0]), pixels(images[2]))
    reference = drawn(counting, JOBS)
    for job, image in zip(asked, images, strict=True):
        assert np.abs(pixels(image) - reference[job]).max() <= 1

    counting.pipeline.calls.clear()
    again = ImageStore(tmp_path / "images", "w", SAMPLER).images(asked, counting)
    assert counting.pipeline.calls == []
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(images, again, strict=True))


def test_a_killed_run_continues_where_it_stopped(counting: Model, tmp_path: Path) -> None:
    sampler = SAMPLER.model_copy(update={"batch_size": 2})
    store = ImageStore(tmp_path, "w", sampler)
    counting.pipeline.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        store.images(JOBS, counting)
    assert sorted(tmp_path.iterdir()) == sorted(store.path(job) for job in JOBS[:2])
    counting.pipeline.stop_after = None
    store.images(JOBS, counting)
    assert counting.pipeline.calls == [2, 2, 1]
    assert sorted(tmp_path.iterdir()) == sorted(store.path(job) for job in JOBS)


@pytest.mark.parametrize("damage", ["empty", "header", "half", "last", "bits"])
def test_a_damaged_file_is_drawn_again(counting: Model, tmp_path: Path, damage: str) -> None:
    store = ImageStore(tmp_path, "w", SAMPLER)
    reference = store.images(JOBS, counting)
    path = store.path(JOBS[2])
    whole = path.read_bytes()
    cut = {"empty": 0, "header": 20, "half": len(whole) // 2, "last": len(whole) - 30}
    if damage == "bits":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes(b ^ 255 for b in whole[middle:-20]) + whole[-20:])
    else:
        path.write_bytes(whole[: cut[damage]])
    counting.pipeline.calls.clear()
    images = store.images(JOBS, counting)
    assert counting.pipeline.calls == [1]
    for one, two in zip(images, reference, strict=True):
        assert np.abs(pixels(one) - pixels(two)).max() <= 1


def test_key_depends_on_weights_prompt_seed_and_sampler(tmp_path: Path) -> None:
    def key(job: Job = JOBS[0], weights: str = "w", **options: Any) -> str:  # noqa: ANN401
        return ImageStore(tmp_path, weights, SAMPLER.model_copy(update=options)).key(job)

    others = [
        key(Job("a photo of a dog", 0)),
        key(Job("a photo of a cat", 1)),
        key(weights="v"),
        key(steps=4),
        key(guidance=4.0),
        key(autocast="bf16"),
        key(height=32),
    ]
    assert len({key(), *others}) == 1 + len(others)
    assert key(batch_size=1) == key()


def test_names_of_files_are_safe_and_differ(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, "w", SAMPLER)
    jobs = [Job(p, 0) for p in ("../../etc", "a/b", "A/B", "é", "ü", "", "x" * 300)]
    paths = [store.path(job) for job in jobs]
    assert len(set(paths)) == len(paths)
    assert all(path.parent == tmp_path and len(path.name) < 120 for path in paths)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"expected to be able to write .*file"):
        ImageStore(tmp_path / "file" / "images", "w", SAMPLER)


_SCRIPT = """
import json, sys
from pathlib import Path
import torch
from conftest import make_pipeline
from redediting.generation import ImageStore, Job, Sampler, process_state
from redediting.models.model import Model
from redediting.metrics.fidelity import fid

out = Path(sys.argv[1])
jobs = [Job(*job) for job in json.loads(sys.argv[2])]
state = process_state("cpu")
pipeline = make_pipeline()
drawn = []
call = type(pipeline).__call__
class Counting(type(pipeline)):
    def __call__(self, *args, **options):
        drawn.append(len(options["generator"]))
        return call(self, *args, **options)
pipeline.__class__ = Counting
store = ImageStore(out / "images", "w", Sampler(steps=3, batch_size=4))
images = store.images(jobs, Model(pipeline))
result = {"processes": state.num_processes, "drawn": sum(drawn),
          "keys": [store.key(job) for job in jobs], "pixels": [i.tobytes().hex() for i in images]}
if state.is_main_process:  # must not wait for the other process
    x = torch.arange(80.0).reshape(40, 2).sin()
    result["fid"] = fid(x, x + 1).value
(out / f"{state.process_index}.json").write_text(json.dumps(result))
"""


def test_two_processes_give_the_same_keys_and_order_as_one(
    tiny_model: Model, tmp_path: Path
) -> None:
    script = tmp_path / "draw.py"
    script.write_text(_SCRIPT)
    jobs = [*JOBS, JOBS[0]]  # five distinct: 3 + 2
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(str(script), str(tmp_path), json.dumps([[job.prompt, job.seed] for job in jobs])),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["processes"] == two["processes"] == 2
    assert (one["drawn"], two["drawn"]) == (3, 2)
    assert one["keys"] == two["keys"]
    assert one["pixels"] == two["pixels"]
    assert one["fid"] == pytest.approx(2.0)

    alone = ImageStore(tmp_path / "alone", "w", SAMPLER)
    assert [alone.key(job) for job in jobs] == one["keys"]
    for image, text in zip(alone.images(jobs, tiny_model), one["pixels"], strict=True):
        other = np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(16, 16, 3)
        assert np.abs(pixels(image) - other).max() <= 1


def test_processes_that_accelerate_does_not_know_of_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert process_state("cpu").num_processes == 1
    monkeypatch.setenv("LOCAL_RANK", "0")  # as if accelerate had been asked before the launch
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="expected 2 processes on cpu, as launched, got 1"):
        process_state("cpu")


def test_an_edited_pipeline_has_images_of_its_own(tiny_model: Model, tmp_path: Path) -> None:
    clean = ImageStore(tmp_path, tiny_model.fingerprint(), SAMPLER)
    before = clean.images(JOBS[:1], tiny_model)[0]
    with torch.no_grad():
        for name, weight in tiny_model.denoiser.named_parameters():
            if name.endswith("attn2.to_v.weight"):
                weight.mul_(-3)
    edited = ImageStore(tmp_path, tiny_model.fingerprint(), SAMPLER)
    after = edited.images(JOBS[:1], tiny_model)[0]
    assert clean.path(JOBS[0]) != edited.path(JOBS[0])
    assert not np.array_equal(pixels(before), pixels(after))
