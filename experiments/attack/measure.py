"""Attack success and what it costs: methods x rebindings x seeds beside the clean model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from experiments.attack.inception import inception_fid
from experiments.attack.page import run_page
from experiments.attack.published import published
from experiments.engine.real_models import check_embedded
from experiments.engine.specs import AttackConfig
from redediting.attacks.base import ClosedForm
from redediting.errors import ConfigError
from redediting.evaluation.claims import claims
from redediting.evaluation.entries import Entry
from redediting.evaluation.evaluate import summarised
from redediting.evaluation.fidelity import describe_extractor, naturalness
from redediting.evaluation.measure import Run, Wanted, run_task
from redediting.evaluation.panel import Panel, open_panel
from redediting.io import check_writable, replace_json
from redediting.models.model import Model

SCHEMA = 3  # of the summary


def attack(
    config: AttackConfig, *, out: Path, device: str, quick: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Resolves and runs a configuration; empty in processes other than the main one.

    Raises:
        RedEditingError: whatever is wrong with the configuration, the model or the folder.
    """
    resolved = config.resolved(quick=quick)
    check_writable(out)
    model = resolved.runtime.load(resolved.model, device)
    check_embedded(model, resolved.judge, resolved.inception)
    panel = open_panel(resolved.judge.build(), resolved.scores, device)
    if resolved.inception is not None:
        resolved.inception.extractors(device)  # what is missing shall be missed now, not later
    entries = resolved.entries(warm=quick)
    return measure(resolved, model, panel, entries, out=out, progress=progress)


def measure(
    config: AttackConfig,
    model: Model,
    panel: Panel,
    entries: Sequence[Entry],
    *,
    out: Path,
    progress: bool = False,
) -> dict[str, Any]:
    """Measures entries, the control first, by a resolved configuration; writes summary and page.

    Returns:
        The summary; empty in processes other than the main one.
    """
    run = run_config(config, model, panel, entries, out=out, progress=progress)
    if not PartialState().is_main_process:
        return {}
    summary = summarise(run, config, entries)
    replace_json(run.store.folder / "summary.json", summary)
    run_page(summary, run.store.folder).write(run.store.folder / "report.html")
    return summary


def run_config(
    config: AttackConfig,
    model: Model,
    panel: Panel,
    entries: Sequence[Entry],
    *,
    out: Path,
    progress: bool = False,
    wanted: Wanted | None = None,
) -> Run:
    """Measures what the run folder of a resolved configuration has not got.

    ``wanted`` gives the prompt sets of an entry where the configuration does not decide.
    """
    if config.sampler is None:
        raise ConfigError("expected a resolved configuration, got one without a sampler")
    task = config.task()
    if wanted is not None:
        task = replace(task, wanted=wanted)
    return run_task(
        config.experiment, config, task, model, panel, entries, out=out,
        quick=config.quick, progress=progress,
    )  # fmt: skip


def summarise(run: Run, config: AttackConfig, entries: Sequence[Entry]) -> dict[str, Any]:
    """The summary of a finished run, as in ``summary.json``."""
    results = summarised(run, config.reference)
    rows, spec = results.rows, config.claims
    ours = next((method.name for method in config.methods if method.title == spec.ours), None)
    built = {method.title: method.build() for method in config.methods}
    resize = (
        "none, the model's own size is the extractor's"
        if config.judge.name == "world"
        else f"the image transform of {config.scores.model}"
    )
    return {
        "experiment": config.experiment,
        "model": config.model,
        "judge": config.judge.name,
        "rows": rows,
        "methods": results.methods,
        "families": config.families,
        "claims": claims(
            rows,
            [entry.title for entry in entries if entry.control],
            spec,
            dials=config.dials,
            left_out=[m.title for m in config.methods if m.name == ours or m.family],
            trained=[title for title, m in built.items() if not isinstance(m, ClosedForm)],
            natural=naturalness(run, spec.ours, spec.readings),
        ),
        "fidelity": describe_extractor(run, config.reference, resize),
        "inception": inception_fid(run, config.inception),
        "published": published(config),
        "n_pairs": len(run.task.rebindings),
        "n_seeds": len(run.task.seeds),
        "images": sum(line["n_sets"][name] for line in rows for name in line["n_sets"]),
        "quick": config.quick,
        "report": (run.store.folder / "report.html").as_posix(),
        "schema_version": SCHEMA,
    }
