"""What each part of a method is worth, what its dials trade, and how many backdoors fit.

Swept settings are ranked on text states first (`experiments.ablation.sweep`); images are drawn by
the engine of every experiment, so that a killed run continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from experiments.ablation.capacity import capacity
from experiments.ablation.page import ablation_page
from experiments.ablation.sweep import best_baseline, choose, confirmed, foresee_settings
from experiments.attack.measure import run_config, summarise
from experiments.engine.specs import OURS, AblationConfig
from redediting.evaluation.panel import Panel
from redediting.io import replace_json
from redediting.models.model import Model


def ablate(
    config: AblationConfig, model: Model, panel: Panel, *, out: Path, progress: bool = False
) -> dict[str, Any]:
    """Ranks, draws, judges and reports, by a resolved configuration.

    Returns:
        The summary of an attack with ``foreseen``, ``choices`` and ``capacity``; empty in
        processes other than the main one.
    """
    foreseen = foresee_settings(config, model, out=out, progress=progress)
    chosen = confirmed(config, foreseen)
    entries = chosen.entries(warm=True)
    run = run_config(chosen, model, panel, entries, out=out, progress=progress)
    held: dict[str, Any] | None = None
    if chosen.capacity is not None:
        held = capacity(chosen.capacity, chosen, model, panel, out=out, progress=progress)
    if not PartialState().is_main_process:
        return {}
    summary = summarise(run, chosen, entries)
    ours = [spec.title for spec in chosen.methods if spec.name == OURS]
    choices = choose(chosen, summary["methods"])
    for line in summary["methods"]:
        if line["method"] in foreseen:
            promise = foreseen[line["method"]]
            line |= {"firing": promise.firing, "probe_firing": promise.probe_firing}
    summary |= {
        "foreseen": {title: asdict(one) for title, one in foreseen.items()},
        "choices": choices,
        "baseline": best_baseline(choices, ours),
        "choices_yaml": written(choices),
        "capacity": held,
    }
    folder = run.store.folder
    replace_json(folder / "summary.json", summary)
    ablation_page(summary, folder).write(folder / "report.html")
    return summary


def written(choices: Sequence[dict[str, Any]]) -> str:
    """The chosen settings as an attack configuration names them; empty without a choice."""
    if not choices:
        return ""
    text: str = yaml.safe_dump(
        {"methods": [choice["spec"] for choice in choices]}, sort_keys=False, allow_unicode=True
    )
    return text
