"""Attack success and what it costs: methods x pairs x seeds beside the clean model.

``python -m experiments.attack configs/attack/first.yaml [--quick]``, or, with several processes,
``accelerate launch -m experiments.attack …``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from accelerate import PartialState

from experiments.claims import claims
from experiments.console import Shown, pick_device, run_main
from experiments.engine.folder import check_writable, replace_json
from experiments.engine.real_models import make_panel
from experiments.engine.runner import Run, Runner, method_sources
from experiments.engine.specs import AttackConfig, load_config
from experiments.entry import Experiment
from experiments.fidelity import NOTHING, describe_extractor, fidelity, naturalness
from experiments.inception import inception_fid, load_inception
from experiments.judges import Panel
from experiments.published import published, published_lines
from experiments.report.page import write_page
from experiments.report.publish import public
from experiments.rows import RowFile
from experiments.sources import Source
from experiments.summary import pooled, summary_rows
from redediting.models.model import Model


@dataclass(frozen=True)
class Attack(Experiment):
    """Runs methods x pairs x seeds and writes rows, summary and report."""

    def run(self) -> int:
        """Runs the experiment."""
        config = load_config(self.config, AttackConfig)
        attack(config, out=self.out, device=self.device, quick=self.quick, as_json=self.json)
        return 0


def attack(
    config: AttackConfig, *, out: Path, device: str = "auto", quick: bool = False, as_json: bool
) -> dict[str, Any]:
    """Runs a configuration on the methods it names and shows the result.

    Args:
        config: as written; resolved here.
        out: where run folders lie.
        device: ``auto``, ``cpu`` or ``cuda``.
        quick: whether to run the reduced form.
        as_json: whether standard output is for programs.

    Returns:
        The summary.

    Raises:
        RedEditingError: whatever is wrong with the configuration, the model or the folder.
    """
    resolved = config.resolved(quick=quick)
    check_writable(out)
    chosen = pick_device(device)
    model = resolved.runtime.load(resolved.model, chosen)
    panel = make_panel(resolved.judges, chosen)
    if resolved.inception is not None:
        load_inception(resolved.inception)  # what is missing shall be missed now, not at the end
    sources = method_sources(resolved, warm=quick)
    shown = Shown(as_json)
    summary = evaluate(
        resolved, model, panel, sources, out=out, device=chosen, progress=shown.progress
    )
    if PartialState().is_main_process:
        shown.rows(summary)
        for line in published_lines(summary):
            shown.line(line)
        shown.result(public(summary))
    return summary


def evaluate(
    config: AttackConfig,
    model: Model,
    panel: Panel,
    sources: Sequence[Source],
    *,
    out: Path,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Measures sources on the pairs of a resolved configuration; writes summary and report.

    Args:
        config: resolved.
        model: the clean model.
        panel: the judges.
        sources: the control first.
        out: where run folders lie.
        device: torch device of the model.
        progress: whether to show a bar.

    Returns:
        The summary; empty in processes other than the main one.
    """
    runner = Runner(config, model, panel, sources, root=out, device=device, progress=progress)
    run = runner()
    if not PartialState().is_main_process:
        return {}
    summary = summarise(run, panel, sources)
    write_page(run.folder, summary, RowFile(run.rows).rows)
    return summary


def summarise(run: Run, panel: Panel, sources: Sequence[Source]) -> dict[str, Any]:
    """Writes ``summary.json`` of a finished run and returns it."""
    rows = RowFile(run.rows).rows
    lines = summary_rows(rows)
    distances = fidelity(run, panel)
    controls = [source.title for source in sources if source.control]
    config = run.config
    ours = next((spec.name for spec in config.methods if spec.title == config.claims.ours), None)
    summary = {
        "experiment": config.experiment,
        "model": config.model,
        "rows": lines,
        "methods": [line | distances.get(line["method"], NOTHING) for line in pooled(lines)],
        "families": config.families,
        "claims": claims(
            lines,
            controls,
            config.claims,
            families=config.families | {s.title: [s.title] for s in sources if _alone(s, config)},
            variants=[spec.title for spec in config.methods if spec.name == ours],
            natural=naturalness(run),
        ),
        "fidelity": describe_extractor(run, panel),
        "inception": inception_fid(run),
        "published": published(run.config),
        "n_pairs": len(run.pairs),
        "n_seeds": len(run.config.seeds),
        "images": sum(line["n_sets"][name] for line in lines for name in line["n_sets"]),
        "report": (run.folder / "report.html").as_posix(),
    }
    replace_json(run.folder / "summary.json", summary)
    return summary


def _alone(source: Source, config: AttackConfig) -> bool:
    """Whether a source was handed over, a patch or a model, and not named as a method."""
    return not source.control and all(spec.title != source.title for spec in config.methods)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.attack``; returns the exit code."""
    return run_main(lambda: tyro.cli(Attack, args=arguments, description=__doc__).run())


if __name__ == "__main__":
    sys.exit(main())
