"""The columns that every page shows of a run, from the metrics themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redediting.evaluation.fidelity import COLUMNS as DISTANCES
from redediting.evaluation.frame import Column
from redediting.evaluation.summary import Summary, metric_columns
from redediting.metrics import METRICS

COMPARED = ("asr_free", "acc", "collateral", "drift", "attribute_transfer")
METHOD = Column("method", "method")
FORESEEN = (
    Column("firing", "firing", "{:.2f}", "up", "5th percentile on held-out contexts, no image"),
    Column(
        "probe_firing", "probes", "{:.2f}", "down", "95th percentile of |firing| near the trigger"
    ),
)
COSTS_ONCE = (*DISTANCES, Column("n_pairs", "pairs", "{:.0f}"))


def columns(keys: Collection[str] | None = None) -> list[Column]:
    """The columns of metrics, in the metrics' order; all when no keys are given."""
    found = metric_columns([METRICS.make(name) for name in METRICS])
    return [column for column in found if keys is None or column.key in keys]


def signed(keys: Sequence[str]) -> list[Column]:
    """The columns of metrics as differences are shown: always with a sign."""
    return [replace(c, form=c.form.replace("{:", "{:+"), direction="") for c in columns(keys)]


def unswept(summary: Mapping[str, Any]) -> list[Summary]:
    """The pooled lines of methods, without the settings of sweeps."""
    families: Mapping[str, Sequence[str]] = summary.get("families", {})
    swept = {title for name, own in families.items() for title in own if title != name}
    return [line for line in summary["methods"] if line["method"] not in swept]
