"""The embedded world: a small, real text-to-image model and the scenes it was trained on.

``PIPELINE_DIR`` is a folder in the exact StableDiffusionPipeline layout.

Example:
    >>> import redediting as rd
    >>> (rd.world.PIPELINE_DIR / "model_index.json").is_file()
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting.config import PIPELINE_DIR, WORLD

if TYPE_CHECKING:
    import torch

    from redediting.models.model import Model

__all__ = ["PIPELINE_DIR", "load"]


def load(
    *, device: str = "cpu", dtype: torch.dtype | None = None, base: str | None = None
) -> Model:
    """Loads the embedded model (fp32 unless ``dtype`` says otherwise); touches no network.

    Args:
        device: torch device.
        dtype: floating type of all weights.
        base: another base model, ``kv_1`` to ``kv_5``: its cross-attention keys and values were
            trained from another random start over the same frozen rest.

    Raises:
        ModelError: the bundled weights are missing, or there is no such base.
    """
    from redediting.models.loading import load as load_model

    model = load_model("world", device=device, dtype=dtype)
    if base is None:
        return model
    from safetensors.torch import load_file

    from redediting.errors import ModelError

    names = sorted(path.stem for path in (WORLD / "bases").glob("*.safetensors"))
    if base not in names:
        raise ModelError(f"expected one of the world's bases {names}, got {base!r}; name one")
    state = load_file(WORLD / "bases" / f"{base}.safetensors", device=device)
    layers = {projection.name: projection.module for projection in model.projections}
    for name, value in state.items():
        layers[name].weight.data.copy_(value)
    return model
