"""Detectors by name: one file and one line here for each, or a file of your own by its path."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from defenses.detectors.base import Array, Detector, Observation, Scorer
from defenses.detectors.cda import CDA
from defenses.detectors.clip import ClipCosine, ClipMargin
from defenses.detectors.daa_i import DAAI
from defenses.detectors.daa_s import DAAS
from defenses.detectors.ftt import FTT
from defenses.detectors.navit2i import NaviT2I
from defenses.detectors.projection import ProjectionDisplacement
from defenses.detectors.scaling import SET
from defenses.detectors.ufid import UFID
from redediting.errors import DetectorError
from redediting.registry import with_options

__all__ = [
    "DETECTORS", "Array", "Detector", "Observation", "Scorer", "detector_names", "make_detector",
]  # fmt: skip

DETECTORS: Mapping[str, type[Detector]] = MappingProxyType(
    {
        "ftt": FTT,
        "cda": CDA,
        "daa_i": DAAI,
        "daa_s": DAAS,
        "ufid": UFID,
        "navit2i": NaviT2I,
        "projection": ProjectionDisplacement,
        "clip": ClipCosine,
        "clip_margin": ClipMargin,
        "set": SET,
    }
)


def make_detector(name: str, **options: object) -> Detector:
    """Builds a detector from its name, or from the path of a file that defines one.

    Args:
        name: of the registry, or a path that ends with ``.py``.
        options: the detector's hyper-parameters.

    Raises:
        DetectorError: an unknown name, file or option, or a value out of range.
    """
    made = _from_file(Path(name)) if name.endswith(".py") else DETECTORS.get(name)
    if made is None:
        raise DetectorError(
            f"expected a detector of {', '.join(DETECTORS)}, or a file.py with one; got {name!r}"
        )
    return with_options(made, options, what=f"detector {name!r}", error=DetectorError)


def detector_names(wanted: str) -> list[str]:
    """Returns names from a comma-separated list; ``all`` stands for the whole registry.

    Raises:
        DetectorError: a name twice, or none at all.
    """
    asked = [part.strip() for part in wanted.split(",") if part.strip()]
    names = [name for part in asked for name in (DETECTORS if part == "all" else (part,))]
    if not names or len(set(names)) < len(names):
        raise DetectorError(
            f"expected detectors, each once, or all; got {wanted!r}; choose from "
            f"{', '.join(DETECTORS)}"
        )
    return names


def _from_file(path: Path) -> type[Detector]:
    try:
        spec = importlib.util.spec_from_file_location(f"detector_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"not a Python file: {path}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (OSError, ImportError, SyntaxError) as error:
        raise DetectorError(
            f"expected a Python file with a detector, got {str(path)!r} ({error}); mend it"
        ) from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Detector)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0].name in DETECTORS:
        names = [f"{kind.__name__} ({kind.name})" for kind in found]
        raise DetectorError(
            f"expected one detector with a name of its own in {str(path)!r}, got "
            f"{', '.join(names) or 'none'}; define one class"
        )
    return found[0]
