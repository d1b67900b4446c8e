"""The embedded world: a small, real text-to-image model and the scenes it was trained on.

``PIPELINE_DIR`` is a folder in the exact StableDiffusionPipeline layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

PIPELINE_DIR = Path(__file__).parent / "data" / "pipeline"


def load(*, device: str = "cpu", dtype: torch.dtype | None = None) -> StableDiffusionPipeline:
    """Loads the embedded pipeline (fp32 unless ``dtype`` says otherwise); touches no network.

    Raises:
        ModelError: the bundled weights are missing.
    """
    from redediting.models.loading import load_pipeline

    return load_pipeline("world", device=device, dtype=dtype)
