"""LPIPS between the edited and the clean model's images, by torchmetrics, from local weights.

References:
    Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018.

Deviations:
    EvilEdit and BackdoorDM take "a photo of a {class}" for 100 ImageNet classes at 50 steps with
    one generator for all images; here it is a run's benign captions, each with its own noise. The
    network is theirs (SqueezeNet).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from redediting.errors import MetricError
from redediting.io import one_line
from redediting.metrics.base import Drawn, Metric


class LPIPS(Metric):
    """Perceptual distance to the clean model's image, same prompt and noise; SqueezeNet.

    Example:
        >>> rd.metrics.LPIPS().unit, rd.metrics.LPIPS().direction
        ('distance', 'down')
    """

    name, title, unit, direction = "lpips", "LPIPS", "distance", "down"
    meaning = "SqueezeNet LPIPS to the clean image, benign captions"
    sets, paired = ("benign",), True
    always = False  # its weights do not come with this package

    def check(self) -> None:
        """See `Metric`; torchmetrics would download what is missing."""
        if not self._file.is_file():
            raise MetricError(
                f"expected LPIPS's backbone at {str(self._file)!r}, got no file; put "
                f"torchvision's {self._file.name} there, or set "
                "TORCH_HOME to where hub/checkpoints holds it"
            )

    def per_image(self, drawn: Drawn) -> Sequence[float]:
        pairs = zip(drawn.images, drawn.clean, strict=True)
        found = [float(self._network(_pixels(image), _pixels(clean))) for image, clean in pairs]
        self._network.reset()
        return found

    @cached_property
    def _network(self) -> Any:  # noqa: ANN401 - torchmetrics has no types
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self.check()
        try:
            return LearnedPerceptualImagePatchSimilarity(net_type="squeeze").eval()
        except Exception as error:  # whatever reading a damaged file raises
            raise MetricError(
                f"expected SqueezeNet 1.1's weights in {str(self._file)!r}, got "
                f"{one_line(error)}; fetch the file again"
            ) from error

    @property
    def _file(self) -> Path:
        from torchvision.models import SqueezeNet1_1_Weights

        url = SqueezeNet1_1_Weights.DEFAULT.url
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _pixels(image: Image.Image) -> Tensor:
    """An image as (1, 3, h, w) in −1…1."""
    array = torch.from_numpy(np.array(image.convert("RGB")))
    return array.permute(2, 0, 1)[None].float().div(127.5).sub(1)
