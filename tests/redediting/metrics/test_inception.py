"""clean-fid's extractor where the package is, its refusal where it is not; what a FID names."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from redediting.errors import ConfigError, MetricError
from redediting.metrics.fidelity import FID, comparable, fid
from redediting.metrics.inception import (
    CLEAN_WEIGHTS,
    Extractor,
    clean_fid,
    port_features,
    torch_fidelity,
)
from redediting.metrics.intervals import Interval

HAS_CLEAN_FID = importlib.util.find_spec("cleanfid") is not None


def pictures(folder: Path, n: int) -> list[Path]:
    generator = np.random.default_rng(0)
    for i in range(n):
        pixels = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return sorted(folder.glob("*.png"))


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if HAS_CLEAN_FID:
        monkeypatch.setitem(sys.modules, "cleanfid", None)
        monkeypatch.delitem(sys.modules, "cleanfid.fid", raising=False)
    with pytest.raises(ConfigError, match="expected the package clean-fid") as caught:
        clean_fid(tmp_path / CLEAN_WEIGHTS)
    assert str(caught.value).endswith("install the extra: pip install 'redediting[fid]'")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"expected torch-fidelity and its weights in .*none"):
        torch_fidelity(tmp_path / "none.pth")


class Layers(nn.Module):
    """Stands where NVIDIA's file keeps its network: 2,048 features of pixels in −1…1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, (32, 32))[:, :2].flatten(1)


class File(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CLEAN_FID, reason="needs the extra fid")
def test_clean_fid_resizes_by_channel_without_rounding(tmp_path: Path) -> None:
    files = pictures(tmp_path, 24)
    with pytest.raises(ConfigError, match=f"a file named {CLEAN_WEIGHTS}, got"):
        clean_fid(tmp_path / CLEAN_WEIGHTS)
    (tmp_path / CLEAN_WEIGHTS).write_bytes(b"none")
    with pytest.raises(ConfigError, match="expected TorchScript in"):
        clean_fid(tmp_path / CLEAN_WEIGHTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(File()).save(tmp_path / CLEAN_WEIGHTS)
    extractor = clean_fid(tmp_path / CLEAN_WEIGHTS, batch_size=5)
    assert extractor.name.startswith("clean-fid 0.1")
    assert CLEAN_WEIGHTS in extractor.name

    def channel(array: np.ndarray) -> np.ndarray:
        image = Image.fromarray(array.astype(np.float32))
        return np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC))

    arrays = [np.asarray(Image.open(file)) for file in files]
    resized = np.stack([[channel(a[..., c]) for c in range(3)] for a in arrays])
    expected = Layers()((torch.from_numpy(resized) - 128) / 128)
    torch.testing.assert_close(extractor.features(files), expected, atol=1e-5, rtol=1e-5)
    found = extractor.fid(files, files[::-1], "itself")
    # 24 samples of 2,048 features: the root of a matrix of rank 23, whose zeros are rounded
    spread = float(torch.cov(expected.double().T).trace())
    assert abs(found.interval.value) < 1e-4 * spread
    assert (found.interval.n, found.reference_n, found.reference) == (24, 24, "itself")


def test_image_files_become_features(tmp_path: Path) -> None:
    paths = []
    for i, size in enumerate([(8, 8), (8, 8), (6, 4)]):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", size, (i * 50, 0, 0)).save(paths[-1])

    class Mean(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert pixels.dtype == torch.uint8
            return pixels.float().mean(dim=(2, 3))

    found = port_features(Mean(), paths, 2)
    assert found.tolist() == [[0, 0, 0], [50, 0, 0], [100, 0, 0]]


def test_a_figure_has_all_that_it_depends_on(tmp_path: Path) -> None:
    files = pictures(tmp_path, 40)

    def mean(paths: list[Path]) -> Tensor:
        arrays = [np.asarray(Image.open(path), dtype=np.float64) for path in paths]
        return torch.from_numpy(np.stack([array.mean(axis=(0, 1)) for array in arrays]))

    found = Extractor("mean colour", "none", mean).fid(files[:20], files[20:], "the others")
    assert found.interval == fid(mean(files[:20]), mean(files[20:]))
    assert FID.of(found.row()) == found
    assert found.row() == {
        "fid": found.interval.value, "fid_ci": found.interval.bounds, "n": 20,
        "extractor": "mean colour", "resize": "none", "reference": "the others",
        "reference_n": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: FID(Interval(9.0, 8.0, 10.0, 5000), *f), "one N, got 10000 and 5000"),
        (lambda f: FID(ONE, "other", *f[1:]), "one extractor, got 'clean-fid' and 'other'"),
        (lambda f: FID(ONE, f[0], "none", *f[2:]), "one resize, got 'bicubic' and 'none'"),
        (lambda f: FID(ONE, *f[:2], "COCO", f[3]), "one reference, got 'clean' and 'COCO'"),
        (lambda f: FID(ONE, *f[:3], 5), "one reference N, got 10000 and 5"),
    ],
)
def test_what_may_not_be_compared_is_refused(
    change: Callable[[tuple[str, str, str, int]], FID], said: str
) -> None:
    setting = ("clean-fid", "bicubic", "clean", 10000)
    comparable(FID(ONE, *setting), FID(Interval(1.0, 0.0, 2.0, 10000), *setting))
    with pytest.raises(MetricError, match=said):
        comparable(FID(ONE, *setting), change(setting))


ONE = Interval(9.0, 8.0, 10.0, 10000)
