"""A run of independent units, in one process or several: opened once, filled, written in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from redediting.evaluation.store import ResultStore, Row

T = TypeVar("T")


def shared_store(out: Path, experiment: str, **options: Any) -> ResultStore:  # noqa: ANN401
    """`ResultStore.create` for all processes of a launch: the main one makes it, others read."""
    state = PartialState()
    with state.main_process_first():
        return ResultStore.create(out, experiment, write=state.is_main_process, **options)


def fill(
    store: ResultStore,
    units: Mapping[str, T],
    measure: Callable[[T], tuple[list[Row], Mapping[str, np.ndarray]]],
    *,
    progress: bool = False,
) -> None:
    """Measures the units that a store has not got; each process takes one, the main one writes.

    ``units`` are by identifier, in the order in which they are written; ``measure`` gives rows and
    arrays of one.
    """
    state = PartialState()
    missing = [name for name in units if name not in store]
    done, hidden = len(units) - len(missing), not (progress and state.is_main_process)
    with tqdm(total=len(units), initial=done, unit="unit", disable=hidden) as bar:
        for first in range(0, len(missing), state.num_processes):
            names = missing[first : first + state.num_processes]
            bar.set_description(names[0])
            own = names[state.process_index : state.process_index + 1]
            found = gather_object([(name, *measure(units[name])) for name in own])
            for name, rows, arrays in found if state.is_main_process else ():
                store.append(name, rows, arrays=arrays)
            bar.update(len(names))
