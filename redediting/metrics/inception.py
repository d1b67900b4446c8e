"""FID on Inception features, the extractors of the field's tables; needs the extra ``fid``.

The FID of record is clean-fid's, which EvilEdit and BackdoorDM report: its resize (PIL, bicubic,
channel by channel in float32, not rounded to bytes) before the 2015 TensorFlow network in NVIDIA's
TorchScript file. torch-fidelity's port with its own resize stands only beside it. Distances are
computed by `redediting.metrics.fidelity.fid`. Nothing is downloaded for clean-fid.

References:
    Parmar et al., "On aliased resizing and surprising subtleties in GAN evaluation", CVPR 2022
    (clean-fid).
    Obukhov et al., "High-fidelity performance metrics for generative models in PyTorch", 2020.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from redediting.errors import ConfigError
from redediting.io import one_line
from redediting.metrics.fidelity import FID, fid

CLEAN_WEIGHTS = "inception-2015-12-05.pt"
_EXTRA = "install the extra: pip install 'redediting[fid]'"


@dataclass(frozen=True)
class Extractor:
    """Features of image files.

    Attributes:
        name: package, version, network and the weights' digest.
        resize: in words.
        features: from n files to (n, 2048).
    """

    name: str
    resize: str
    features: Callable[[Sequence[Path]], Tensor]

    def fid(self, images: Sequence[Path], reference: Sequence[Path], said: str) -> FID:
        """The FID of image files against a reference, with all that it depends on.

        Args:
            images: n files, in the order of their prompts; at least 20.
            reference: likewise.
            said: the reference in words.
        """
        interval = fid(self.features(images), self.features(reference))
        return FID(interval, self.name, self.resize, said, len(reference))


def clean_fid(weights: str | Path, *, device: str = "cpu", batch_size: int = 32) -> Extractor:
    """clean-fid's extractor in its mode ``clean``.

    Args:
        weights: the file ``inception-2015-12-05.pt``.
        device: of torch.
        batch_size: images at a time.

    Raises:
        ConfigError: the package or the weights are missing.
    """
    try:
        from cleanfid.fid import get_files_features
        from cleanfid.inception_torchscript import InceptionV3W
    except ImportError as error:
        raise ConfigError(
            f"expected the package clean-fid for the FID of record, got {one_line(error)}; "
            f"{_EXTRA}"
        ) from error
    path = Path(weights).expanduser()
    if path.name != CLEAN_WEIGHTS or not path.is_file():
        raise ConfigError(
            f"expected clean-fid's weights, a file named {CLEAN_WEIGHTS}, got {str(weights)!r}; "
            "fetch NVIDIA's file of StyleGAN2-ADA's metrics where there is a network"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch would drop TorchScript
            network = InceptionV3W(str(path.parent), download=False).to(device)
    except Exception as error:  # whatever TorchScript raises
        raise ConfigError(
            f"expected TorchScript in {str(weights)!r}, got {one_line(error)}; fetch it again"
        ) from error

    def features(files: Sequence[Path]) -> Tensor:
        found = get_files_features(
            [str(file) for file in files], model=network, num_workers=0, batch_size=batch_size,
            device=torch.device(device), mode="clean", verbose=False,
        )  # fmt: skip
        return torch.from_numpy(np.asarray(found))

    name = f"clean-fid {version('clean-fid')}, {CLEAN_WEIGHTS} {_sha256(path)}"
    return Extractor(name, "clean-fid: PIL bicubic to 299, float32", features)


def torch_fidelity(weights: str | Path, *, batch_size: int = 32) -> Extractor:
    """torch-fidelity's port of the same network, through torchmetrics.

    Args:
        weights: its file of weights.
        batch_size: images at a time.

    Raises:
        ConfigError: the package or the weights are missing.
    """
    path = Path(weights).expanduser()
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3(
            name="inception-v3-compat",
            features_list=["2048"],
            feature_extractor_weights_path=str(path),
        ).eval()
        name = f"torch-fidelity {version('torch-fidelity')}, {path.name} {_sha256(path)}"
    except Exception as error:  # a missing module, a file, or whatever reading it raises
        raise ConfigError(
            f"expected torch-fidelity and its weights in {str(weights)!r}, got {one_line(error)}; "
            f"{_EXTRA}, and name the file in inception.torch_fidelity"
        ) from error
    return Extractor(
        name,
        "torch-fidelity: bilinear to 299 as in TensorFlow 2015",
        lambda files: port_features(network, files, batch_size),
    )


@torch.no_grad()
def port_features(network: Any, files: Sequence[Path], batch_size: int) -> Tensor:  # noqa: ANN401
    """Features of image files by a network that takes uint8 images (n, 3, h, w), (n, d)."""
    found = []
    for start in range(0, len(files), batch_size):
        batch = [_pixels(path) for path in files[start : start + batch_size]]
        sizes = {tuple(pixels.shape) for pixels in batch}
        groups = [torch.stack(batch)] if len(sizes) == 1 else [pixels[None] for pixels in batch]
        found += [network(group) for group in groups]
    return torch.cat(found).float().cpu()


def _pixels(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]
