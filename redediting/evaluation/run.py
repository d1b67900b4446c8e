"""A run: a store, the task that filled it, and the entries that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from redediting.config import Config
from redediting.errors import ConfigError
from redediting.evaluation.entries import Entry
from redediting.evaluation.measure import (
    Measurement,
    Task,
    UnitKey,
    measured_units,
    unit_features,
    unit_key,
)
from redediting.evaluation.panel import Panel
from redediting.evaluation.store import ResultStore
from redediting.evaluation.units import shared_store
from redediting.metrics.base import Measured, PromptSet
from redediting.metrics.judge import check_labels
from redediting.models.model import Model

_MEASURED_BY = ("redediting.evaluation.measure", "redediting.evaluation.summary")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        store: its folder.
        task: what was measured.
        titles: of the entries, the control first.
        panel: the judges.
    """

    store: ResultStore
    task: Task
    titles: tuple[str, ...]
    panel: Panel

    @cached_property
    def units(self) -> dict[UnitKey, Measured]:
        """Everything that was measured."""
        return measured_units(self.store)

    def features(self, title: str, name: PromptSet) -> Tensor:
        """Judge A's features of one prompt set of an entry, over all units, ``(n, d)``."""
        keys = [
            unit_key(title, rebinding, seed)
            for seed in self.task.seeds
            for rebinding in self.task.rebindings
        ]
        return unit_features(self.store, keys, name)


def run_task(
    experiment: str,
    config: Config,
    task: Task,
    model: Model,
    panel: Panel,
    entries: Sequence[Entry],
    *,
    out: Path,
    quick: bool = False,
    progress: bool = False,
) -> Run:
    """Measures what a run's folder has not got, and returns the run.

    Args:
        experiment: names the folder above the run's.
        config: resolved; the run's name covers all of it.
        task: what is measured.
        model: clean.
        panel: the judges.
        entries: what edits; the control first.
        out: where run folders lie.
        quick: whether it is a reduced run.
        progress: whether to show a bar.

    Raises:
        ConfigError: a target that the judge does not know, or no control.
        ModelError: an "edited" model whose weights are the clean ones.
        OutputError: the folder cannot be written.
    """
    if not entries or not entries[0].control:
        raise ConfigError("expected the control first among the entries; add the attack 'clean'")
    attacks = [entry.attack for entry in entries if hasattr(entry, "attack")]
    for rebinding in task.rebindings:
        check_labels(panel.judge, [rebinding.target_head])
    store = shared_store(
        out, experiment, config=config, base=model.fingerprint(),
        measured_by=[*_MEASURED_BY, *attacks, *task.metrics, panel.judge, model.layout],
        device=str(model.device), quick=quick,
        extra=["\n".join(task.captions or ()), *(entry.identity for entry in entries)],
    )  # fmt: skip
    Measurement(task, model, panel, entries, store, progress=progress)()
    finished = ResultStore(store.folder)  # every process sees the rows that the main one wrote
    return Run(finished, task, tuple(entry.title for entry in entries), panel)
