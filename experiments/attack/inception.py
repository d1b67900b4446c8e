"""FID on Inception features, the extractor of the field's tables; needs the extra ``fid``.

The network is torch-fidelity's port of the 2015 TensorFlow one, through torchmetrics, with its own
bilinear resize to 299 pixels. N and the reference stand beside every figure: published ones are at
N = 10,000, and FID falls with N.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from experiments.engine.real_models import InceptionSpec
from redediting.errors import ConfigError
from redediting.evaluation.measure import Run
from redediting.metrics.fidelity import fid

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_LEAST = 20  # images, two a block of the jackknife


def inception_fid(run: Run, spec: InceptionSpec | None) -> dict[str, Any]:
    """The FID of every method's benign images, with its interval and N.

    Returns:
        Empty where the configuration does not ask for it; else by method ``fid``, ``fid_ci`` and
        ``n``, and ``reference`` in words.

    Raises:
        ConfigError: the extra is missing, its weights, or the folder of real images.
    """
    if spec is None:
        return {}
    network = load_inception(spec)
    control = run.titles[0]
    if spec.reference is None:
        said = "the clean model's images of the same captions and noise"
        wanted = _benign(run, control)
    else:
        said = f"{Path(spec.reference).name}: real images"
        wanted = _pictures(Path(spec.reference).expanduser())
    reference = features(network, wanted, spec.batch_size)
    found: dict[str, Any] = {"reference": said, "reference_n": len(wanted)}
    for title in run.titles:
        images = _benign(run, title)
        if (spec.reference is None and title == control) or len(images) < _LEAST:
            found[title] = {"fid": None, "fid_ci": None, "n": len(images)}
            continue
        distance = fid(features(network, images, spec.batch_size), reference)
        found[title] = {"fid": distance.value, "fid_ci": distance.bounds, "n": len(images)}
    return found


def load_inception(spec: InceptionSpec) -> nn.Module:
    """The extractor, uint8 images (n, 3, h, w) to features (n, 2048), or `ConfigError`."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        return NoTrainInceptionV3(
            name="inception-v3-compat",
            features_list=["2048"],
            feature_extractor_weights_path=spec.weights,
        ).eval()
    except Exception as error:  # a missing module, a file, or whatever the download raises
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"expected torch-fidelity and the weights of its Inception network, got {line}; "
            "install the extra: pip install 'redediting[fid]', and name the file in "
            "inception.weights where there is no network"
        ) from error


@torch.no_grad()
def features(network: nn.Module, images: Sequence[Path], batch_size: int) -> Tensor:
    """Features of image files, (n, d)."""
    found = []
    for start in range(0, len(images), batch_size):
        batch = [_pixels(path) for path in images[start : start + batch_size]]
        sizes = {tuple(pixels.shape) for pixels in batch}
        groups = [torch.stack(batch)] if len(sizes) == 1 else [pixels[None] for pixels in batch]
        found += [network(group) for group in groups]
    return torch.cat(found).float().cpu()


def _pixels(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def _benign(run: Run, title: str) -> list[Path]:
    return [
        run.store.images / image.image
        for key, measured in run.units.items()
        if key.method == title
        for image in measured.of("benign")
    ]


def _pictures(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if len(found) < _LEAST:
        raise ConfigError(
            f"expected at least {_LEAST} real images in {str(folder)!r}, got {len(found)}; name "
            "their folder in inception.reference"
        )
    return found
