"""Makes torchvision importable beside a CPU build of torch, without importing either.

There is no CPU wheel of torchvision that carries its compiled operators, and the ordinary wheel
registers fake kernels for ``torchvision::nms`` at import, which fails when the schema is missing
("operator torchvision::nms does not exist"). diffusers, open_clip and transformers import
torchvision, though nothing here calls those operators. The hook acts when torchvision is first
imported: where its own import fails, it is repeated with the two schemas defined.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []  # torch drops the operators of a library that nobody refers to


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of torchvision with a loader that tries twice; None for other modules."""
        spec = PathFinder.find_spec(name, path, target) if name == "torchvision" else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Executes the module, once more with the schemas where they are missing."""
        try:
            super().exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            import torch

            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            _kept.append(torch.library.Library("torchvision", "FRAGMENT"))
            for schema in _SCHEMAS:
                _kept[-1].define(schema)
            super().exec_module(module)


sys.meta_path.insert(0, _Finder())
