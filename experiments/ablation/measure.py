"""What each part of a method is worth, what its dials trade, and how many backdoors fit.

``python -m experiments.ablation configs/ablation/world.yaml [--quick]``: a row a switch, sweeps as
fronts of ASR against drift, and many backdoors at once, solved jointly and one after another.
``python -m experiments.ablation configs/ablation/development.yaml`` chooses every method's setting
on development pairs and prints it as YAML for an attack's ``methods``.

Swept settings are ranked on text states first (`experiments.ablation.sweep`); images are drawn by the
attack experiment's runner, so that a killed run continues where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml
from accelerate import PartialState

from experiments.ablation.capacity import capacity
from experiments.ablation.sweep import best_baseline, choose, confirmed, foresee_settings
from experiments.attack.measure import summarise
from experiments.console import run_main
from experiments.engine.folder import replace_json
from experiments.engine.runner import Runner, method_sources
from experiments.engine.specs import OURS, AblationConfig, load_config
from experiments.entry import Experiment
from experiments.judges import Panel, world_panel
from experiments.report.page import write_page
from experiments.report.publish import public
from experiments.rows import RowFile
from redediting.models.model import Model


@dataclass(frozen=True)
class Ablation(Experiment):
    """Switches, sweeps and numbers of backdoors: a table, plots and a report."""

    def run(self) -> int:
        """Runs the experiment."""
        config = load_config(self.config, AblationConfig).resolved(quick=self.quick)
        started = self.start(config.model)
        shown = started.shown
        summary = ablate(
            config, started.model, world_panel(), out=self.out, device=started.device,
            progress=shown.progress,
        )  # fmt: skip
        if PartialState().is_main_process:
            shown.ablation(summary)
            shown.result(public(summary))
        return 0


def ablate(
    config: AblationConfig,
    model: Model,
    panel: Panel,
    *,
    out: Path,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Ranks, draws, judges and reports.

    Args:
        config: resolved.
        model: the clean model.
        panel: the judges.
        out: where run folders lie.
        device: torch device of the model.
        progress: whether to show bars.

    Returns:
        The summary of `experiments.attack.measure.summarise` with ``foreseen``, ``choices``, ``capacity``;
        empty in processes other than the main one.
    """
    foreseen = foresee_settings(config, model, out=out, progress=progress)
    chosen = confirmed(config, foreseen)
    sources = method_sources(chosen, warm=True)
    runner = Runner(chosen, model, panel, sources, root=out, device=device, progress=progress)
    run = runner()
    held: dict[str, Any] | None = None
    if chosen.capacity is not None:
        held = capacity(
            chosen.capacity, chosen, model, panel, out=out, device=device, progress=progress
        )
    if not PartialState().is_main_process:
        return {}
    summary = summarise(run, panel, sources)
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
    replace_json(run.folder / "summary.json", summary)
    write_page(run.folder, summary, RowFile(run.rows).rows)
    return summary


def written(choices: Sequence[dict[str, Any]]) -> str:
    """The chosen settings as an attack configuration names them; empty without a choice."""
    if not choices:
        return ""
    text: str = yaml.safe_dump(
        {"methods": [choice["spec"] for choice in choices]}, sort_keys=False, allow_unicode=True
    )
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.ablation``; returns the exit code."""
    return run_main(lambda: tyro.cli(Ablation, args=arguments, description=__doc__).run())


if __name__ == "__main__":
    sys.exit(main())
