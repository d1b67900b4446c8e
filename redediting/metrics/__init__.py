"""Metrics: what counts as success, what an edit costs, and how sure we are of it.

``METRICS`` has the built-in ones by key, in the order of the tables; the classes are listed flat,
and imported when first asked for.

Example:
    >>> import redediting as rd
    >>> rd.metrics.METRICS.make("drift").title
    'drift'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting._lazy import lazy
from redediting.errors import MetricError
from redediting.registry import Registry

if TYPE_CHECKING:
    from redediting.metrics.base import Metric as Metric

_CLASSES = {  # key: (module, class)
    "asr_free": ("success", "ASRFree"),
    "asr_fixed": ("success", "ASRFixed"),
    "net_asr": ("success", "NetASR"),
    "acc": ("harm", "ACC"),
    "collateral": ("harm", "Collateral"),
    "collateral_worst": ("harm", "CollateralWorst"),
    "attribute_transfer": ("success", "AttributeTransfer"),
    "context_kept": ("success", "ContextKept"),
    "psr": ("success", "PSR"),
    "clip_p": ("harm", "ClipP"),
    "clip_c": ("harm", "ClipC"),
    "drift": ("harm", "Drift"),
    "footprint": ("harm", "Footprint"),
    "footprint_rank": ("harm", "FootprintRank"),
    "footprint_energy": ("harm", "FootprintEnergy"),
    "seconds": ("harm", "Seconds"),
    "lpips": ("lpips", "LPIPS"),
}
_HOMES = {kind: module for module, kind in _CLASSES.values()} | {"Metric": "base"}

METRICS: Registry[Metric] = Registry(
    "metric",
    "redediting.metrics.base:Metric",
    {name: f"redediting.metrics.{module}:{kind}" for name, (module, kind) in _CLASSES.items()},
    group="redediting.metrics",
    error=MetricError,
)

__all__ = ["METRICS", *_HOMES]

__getattr__, __dir__ = lazy(__name__, _HOMES)
