"""Does the audit find edits, name triggers and spare honest changes; what can be repaired?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate import PartialState

from defenses.repair import REPAIRS
from experiments.audit.config import AuditConfig
from experiments.audit.lab import Lab
from experiments.audit.page import audit_page
from experiments.audit.stages import REPAIRED, adaptive, audit_suspects, persistence, repairs
from redediting.attacks import ATTACKS
from redediting.evaluation.audit import summarise
from redediting.evaluation.panel import Panel
from redediting.evaluation.store import ResultStore
from redediting.evaluation.units import shared_store
from redediting.io import replace_json
from redediting.models.model import Model


def measure(
    config: AuditConfig, model: Model, panel: Panel, *, out: Path, progress: bool = False
) -> dict[str, Any]:
    """Runs every stage that the run folder of a resolved configuration has not got.

    Returns:
        The summary, as in ``summary.json``; empty in processes other than the main one.
    """
    started = time.perf_counter()
    store = open_store(config, model, panel, out)
    lab, pairs = Lab(config, model, panel, store, progress), config.test.pairs.rebindings()
    if config.development:
        audit_suspects(lab, config.development, "development")
    audit_suspects(lab, config.test, "test")
    if config.persistence:
        persistence(lab, config.persistence, pairs)
    if config.repairs:
        repairs(lab, config.repairs, pairs)
    if config.adaptive:
        adaptive(lab, config.adaptive, pairs)
    if not PartialState().is_main_process:
        return {}
    summary = {
        "experiment": config.experiment,
        "model": config.model,
        **summarise(store.rows()),
        "seconds": time.perf_counter() - started,
        "report": (store.folder / "report.html").as_posix(),
    }
    replace_json(store.folder / "summary.json", summary)
    audit_page(summary, store.folder).write(store.folder / "report.html")
    return summary


def open_store(config: AuditConfig, model: Model, panel: Panel, out: Path) -> ResultStore:
    """The run's folder; its name covers every source that decides a number.

    Attacks and repairs are imported by name, so they are handed over beside the stages, which
    import the audit, the trainings and the suspects.
    """
    attacks = [spec.build() for spec in config.methods] + [ATTACKS.make("uce")]
    used = [REPAIRS.make(name) for name in dict.fromkeys(name for _, name, _ in REPAIRED)]
    return shared_store(
        out, config.experiment, config=config, base=model.fingerprint(),
        measured_by=["experiments.audit.stages", *attacks, *used, panel.judge, model.layout],
        device=str(model.device), quick=config.quick,
    )  # fmt: skip
