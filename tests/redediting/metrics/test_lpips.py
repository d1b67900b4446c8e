"""LPIPS with a real SqueezeNet from a local file, and its refusal where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
from torchvision.transforms.functional import to_tensor

import redediting as rd
from redediting.errors import MetricError
from redediting.evaluation.evaluate import all_metrics
from redediting.metrics.base import Drawn
from redediting.metrics.lpips import LPIPS


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision keeps SqueezeNet's weights, in a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / Path(SqueezeNet1_1_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    return file


def drawn(images: list[Image.Image], clean: list[Image.Image]) -> Drawn:
    n = len(images)
    features = torch.zeros(n, 1)
    return Drawn(images, clean, [""] * n, [""] * n, ["benign"] * n, features, features, [0.0] * n)


def test_each_image_has_the_figure_of_torchmetrics(backbone: Path) -> None:
    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), backbone)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    metric = LPIPS()
    metric.check()
    found = metric.per_image(drawn(images[:3], images[3:]))
    for value, a, b in zip(found, images[:3], images[3:], strict=True):
        pair = [to_tensor(image)[None] * 2 - 1 for image in (a, b)]
        alone = learned_perceptual_image_patch_similarity(*pair, net_type="squeeze")
        assert value == pytest.approx(float(alone), rel=1e-4)
    assert min(found) > 0
    assert metric.per_image(drawn(images, images)) == [0.0] * 6


def test_missing_or_damaged_weights_are_refused_and_nothing_is_fetched(backbone: Path) -> None:
    with pytest.raises(MetricError, match=f"{backbone.name} there, or set TORCH_HOME"):
        LPIPS().check()
    with pytest.raises(MetricError, match="got no file"):
        LPIPS().per_image(drawn([], []))
    assert not list(backbone.parent.iterdir())
    backbone.write_bytes(b"none")
    with pytest.raises(MetricError, match=r"expected SqueezeNet 1\.1's weights in") as caught:
        LPIPS().per_image(drawn([], []))
    assert "\n" not in str(caught.value)


def test_it_is_measured_only_where_it_is_named(backbone: Path, tmp_path: Path) -> None:
    assert "lpips" not in [metric.name for metric in all_metrics()]
    assert [metric.name for metric in all_metrics(["lpips"])][-1] == "lpips"
    few = rd.Counts(free=1, fixed=1, head=1, phrases=1, collateral=1, benign=2)
    attacks, pair = rd.attacks.EvilEdit(), rd.Rebinding("beautiful cat", "zebra")
    model, out = rd.load("world"), tmp_path / "runs"

    def run() -> rd.Results:
        return rd.evaluate(
            model, attacks, pair, out=out, counts=few, sampler=rd.Sampler(steps=1),
            metrics=["lpips"], progress=False,
        )  # fmt: skip

    with pytest.raises(MetricError, match="expected LPIPS's backbone"):
        run()
    assert not out.exists()
    torch.save(squeezenet1_1(weights=None).state_dict(), backbone)
    clean, edited = run().rows
    assert clean["lpips"] == 0
    assert edited["lpips"] > 0
