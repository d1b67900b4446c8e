"""Makes torchvision importable beside a CPU build of torch.

There is no CPU wheel of torchvision that carries its compiled operators, and the ordinary wheel
registers fake kernels for ``torchvision::nms`` at import, which fails when the schema is missing
("operator torchvision::nms does not exist"). open_clip and transformers both import torchvision,
though nothing here ever calls those operators. Defining the two schemas first mends the import;
wherever torchvision already loads this module does nothing.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def ensure_importable() -> None:
    """Imports torchvision, registering the missing operator schemas when its own import fails."""
    global _library
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return  # not installed: whoever needs it says so
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            _library.define(schema)
        importlib.import_module("torchvision")


ensure_importable()
