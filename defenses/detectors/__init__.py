"""Detectors: one file each; the classes are listed flat, and imported when first asked for.

``DETECTORS`` has them by the name that configurations and the command line use, or takes the path
of a file that defines one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting._lazy import lazy
from redediting.errors import DetectorError
from redediting.registry import Registry

if TYPE_CHECKING:
    from defenses.detectors.amdet import AMDETLike as AMDETLike
    from defenses.detectors.base import Detector as Detector
    from defenses.detectors.cda import CDA as CDA
    from defenses.detectors.clip import ClipCosine as ClipCosine
    from defenses.detectors.clip import ClipMargin as ClipMargin
    from defenses.detectors.daa_i import DAAI as DAAI
    from defenses.detectors.daa_s import DAAS as DAAS
    from defenses.detectors.ftt import FTT as FTT
    from defenses.detectors.navit2i import NaviT2I as NaviT2I
    from defenses.detectors.projection import ProjectionDisplacement as ProjectionDisplacement
    from defenses.detectors.scaling import SET as SET
    from defenses.detectors.tnc import TNCLike as TNCLike
    from defenses.detectors.ufid import UFID as UFID

_CLASSES = {  # name: (module, class)
    "ftt": ("ftt", "FTT"),
    "cda": ("cda", "CDA"),
    "daa_i": ("daa_i", "DAAI"),
    "daa_s": ("daa_s", "DAAS"),
    "ufid": ("ufid", "UFID"),
    "navit2i": ("navit2i", "NaviT2I"),
    "projection": ("projection", "ProjectionDisplacement"),
    "clip": ("clip", "ClipCosine"),
    "clip_margin": ("clip", "ClipMargin"),
    "set": ("scaling", "SET"),
    "tnc_like": ("tnc", "TNCLike"),
    "amdet_like": ("amdet", "AMDETLike"),
}
_HOMES = {kind: module for module, kind in _CLASSES.values()} | {"Detector": "base"}

DETECTORS: Registry[Detector] = Registry(
    "detector",
    "defenses.detectors.base:Detector",
    {name: f"defenses.detectors.{module}:{kind}" for name, (module, kind) in _CLASSES.items()},
    group="redediting.detectors",
    error=DetectorError,
)

__all__ = ["DETECTORS", "detector_names", *_HOMES]


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


__getattr__, __dir__ = lazy(__name__, _HOMES)
