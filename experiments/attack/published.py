"""What papers print, beside what was measured here; the numbers are in ``published.yaml``."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from experiments.engine.specs import AttackConfig
from experiments.report.section import Section
from redediting.evaluation.frame import Column, Frame

_OURS = {"acc": "acc", "clip_p": "clip_p", "clip_c": "clip_c"}  # LPIPS and their FID have no twin
_PER_CENT = ("asr", "acc")
_TEXTS = ("where", "method")
_FORMS = {"fid": "{:.2f}"}


@cache
def load_published() -> tuple[dict[str, Any], ...]:
    """All transcribed tables."""
    text = resources.files("experiments.attack").joinpath("published.yaml").read_text("utf-8")
    return tuple(yaml.safe_load(text))


def published(config: AttackConfig) -> list[dict[str, Any]]:
    """The tables that a configuration's model and protocol can be set beside."""
    return [
        table
        for table in load_published()
        if config.protocol == table["protocol"] and config.model == table["model"]
    ]


def published_sections(summary: dict[str, Any]) -> tuple[Section, ...]:
    """Published figures beside ours, a table a source; and FIDs on Inception features."""
    found = []
    for table in summary.get("published", ()):
        rows = [{"where": "published", **row} for row in table["rows"]]
        for method in summary["methods"]:
            own = {"asr": method[table["asr"]], **{k: method[ours] for k, ours in _OURS.items()}}
            scaled = {
                key: value * 100 if key in _PER_CENT and value is not None else value
                for key, value in own.items()
            }
            rows.append({"where": "measured here", "method": method["method"], **scaled})
        keys = dict.fromkeys(key for row in rows for key in row)
        columns = [Column(key, key, "{}" if key in _TEXTS else "{:.4g}") for key in keys]
        note = (
            f"{table['source']}; ASR is {table['asr']}, judged by {table['judge']}; here by "
            f"{summary['judge']}."
        )
        found.append(Section("Published figures", Frame(tuple(columns), tuple(rows)), note=note))
    if rows := summary.get("inception", []):
        columns = [Column(key, key, _FORMS.get(key, "{}")) for key in rows[0] if key != "fid_ci"]
        note = (
            "The FID of record is clean-fid's. Figures of one extractor, N and reference may be "
            "compared, no others; a method with fewer images than the first is left out."
        )
        found.append(
            Section("FID on Inception features", Frame(tuple(columns), tuple(rows)), note=note)
        )
    return tuple(found)
