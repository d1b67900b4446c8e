"""What papers print, beside what was measured here; the numbers are in ``published.yaml``."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from experiments.engine.specs import AttackConfig

_OURS = {"acc": "acc", "clip_p": "clip_p", "clip_c": "clip_c"}  # LPIPS and their FID have no twin
_PER_CENT = ("asr", "acc")


@cache
def load_published() -> tuple[dict[str, Any], ...]:
    """All transcribed tables."""
    text = resources.files("experiments").joinpath("published.yaml").read_text("utf-8")
    return tuple(yaml.safe_load(text))


def published(config: AttackConfig) -> list[dict[str, Any]]:
    """The tables that a configuration's model and protocol can be set beside."""
    return [
        table
        for table in load_published()
        if config.protocol == table["protocol"] and config.model == table["model"]
    ]


def published_lines(summary: dict[str, Any]) -> list[str]:
    """Published figures and ours, a line each, with their source."""
    lines = []
    for table in summary["published"]:
        lines.append(f"published: {table['source']}")
        lines += [f"  {row['method']}: {_said(row)}" for row in table["rows"]]
        lines.append(f"  measured here, ASR is {table['asr']}:")
        for method in summary["methods"]:
            own = {"asr": method[table["asr"]]} | {
                key: method[ours] for key, ours in _OURS.items()
            }
            scaled = {
                key: value * 100 if key in _PER_CENT and value is not None else value
                for key, value in own.items()
            }
            lines.append(f"  {method['method']}: {_said(scaled)}")
    for title, found in summary["inception"].items():
        if isinstance(found, dict) and found["fid"] is not None:
            lines.append(
                f"Inception FID of {title}: {found['fid']:.2f} (N = {found['n']}, reference: "
                f"{summary['inception']['reference']}, N = {summary['inception']['reference_n']})"
            )
    return lines


def _said(row: dict[str, Any]) -> str:
    figures = {key: value for key, value in row.items() if key != "method" and value is not None}
    return ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
