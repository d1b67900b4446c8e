"""The embedded world: a small, real text-to-image model and the scenes it was trained on.

``PIPELINE_DIR`` is a folder in the exact StableDiffusionPipeline layout.

Example:
    >>> import redediting as rd
    >>> (rd.world.PIPELINE_DIR / "model_index.json").is_file()
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting.config import PIPELINE_DIR

if TYPE_CHECKING:
    import torch

    from redediting.models.model import Model

__all__ = ["PIPELINE_DIR", "load"]


def load(*, device: str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """Loads the embedded model (fp32 unless ``dtype`` says otherwise); touches no network.

    Raises:
        ModelError: the bundled weights are missing.
    """
    from redediting.models.loading import load as load_model

    return load_model("world", device=device, dtype=dtype)
