"""How many backdoors a model holds: solved together, or one after another as peers do.

At each size the same first n pairs of one draw are built in; the run measures some of them,
spread evenly, so that the first and the last built in are among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from experiments.attack.measure import run_config
from experiments.engine.pairs import ListedPairs, PairSpec
from experiments.engine.specs import AttackConfig, Capacity, MethodSpec
from redediting.concepts.rebinding import Kind, Rebinding, draw_pairs
from redediting.evaluation.entries import CONTROL, AttackEntry, Edited, Entry
from redediting.evaluation.evaluate import summarised
from redediting.evaluation.panel import Panel
from redediting.evaluation.summary import Summary, pooled
from redediting.io import digest
from redediting.metrics.base import Metric, PromptSet
from redediting.models.model import Model
from redediting.patch.patch import Patch

ORDERS: tuple[Literal["joint", "sequential"], ...] = ("joint", "sequential")
MEASURED: tuple[PromptSet, ...] = ("free", "head", "collateral", "benign")
_EACH = 10  # pairs of a kind taken from one draw before the next one


def many_pairs(n: int, *, seed: int) -> list[Rebinding]:
    """The first n pairs of one long draw of all kinds in turn, each trigger once."""
    found: dict[str, Rebinding] = {}
    for turn in count():
        draws = [draw_pairs(kind, _EACH, seed * 1000 + turn) for kind in get_args(Kind)]
        for pair in (pair for group in zip(*draws, strict=True) for pair in group):
            found.setdefault(pair.trigger, pair)
            if len(found) == n:
                return list(found.values())
    raise AssertionError  # count() has no end


def spread(n: int, most: int) -> list[int]:
    """Up to ``most`` places among ``n``, first and last included, evenly spread."""
    return sorted({int(place) for place in np.linspace(0, n - 1, min(n, most)).round()})


class ManyEntry:
    """One edit that holds many backdoors, whichever of them is measured."""

    control = False

    def __init__(self, spec: MethodSpec, pairs: Sequence[Rebinding], order: str) -> None:
        """Builds the method; `MethodError` where it cannot solve in this order."""
        self.attack = spec.model_copy(update={"options": spec.options | {"order": order}}).build()
        self.pairs = tuple(pairs)
        self.order = order
        self.label = spec.title
        self.title = f"{spec.title} {order} {len(self.pairs)}"
        self.identity = digest(spec.name, self.attack.model_dump_json(), *map(str, self.pairs))
        self._patch: Patch | None = None

    @contextmanager
    def edited(self, model: Model, pair: Rebinding) -> Iterator[Edited]:
        """See `redediting.evaluation.entries.Entry`."""
        if self._patch is None:
            model.forget()  # so that the seconds are those of this edit alone
            self._patch = self.attack.compute(model, self.pairs)
        with self._patch.apply(model) as applied:
            yield Edited(model, self._patch.provenance.seconds, applied.footprint)


def capacity(
    spec: Capacity,
    config: AttackConfig,
    model: Model,
    panel: Panel,
    *,
    out: Path,
    progress: bool = False,
) -> dict[str, Any]:
    """Measures every size, method and order.

    Returns:
        ``lines``, one a method, order and size, with the rows' keys and their intervals, and the
        clean model's on the same pairs; ``breaks``, see `breaking_points`; ``images``.
    """
    sizes = spec.sizes[:2] if config.quick else spec.sizes
    pairs = many_pairs(max(sizes), seed=spec.seed)
    measured = {n: [pairs[i] for i in spread(n, spec.probed)] for n in sizes}
    union = [pair for pair in pairs if any(pair in own for own in measured.values())]
    control = AttackEntry(MethodSpec(name=CONTROL).build())
    many = [
        ManyEntry(method, pairs[:n], order)
        for method in spec.methods
        for n in sizes
        for order in (ORDERS if n > 1 else ORDERS[:1])
    ]
    size = {entry.title: len(entry.pairs) for entry in many}

    def wanted(title: str, pair: Rebinding, _: int) -> tuple[PromptSet, ...]:
        return MEASURED if title not in size or pair in measured[size[title]] else ()

    own = AttackConfig(
        experiment="capacity",
        model=config.model,
        methods=(MethodSpec(name=CONTROL),),
        pairs=ListedPairs(pairs=tuple(PairSpec.of(pair) for pair in union)),
        counts=config.quick_counts if config.quick else spec.counts,
        sampler=config.sampler,
    ).model_copy(update={"quick": config.quick})
    entries: list[Entry] = [control, *many]
    resolved = own.resolved()
    run = run_config(
        resolved, model, panel, entries, out=out, progress=progress, wanted=wanted
    )  # fmt: skip
    lines = summarised(run, resolved.reference).rows
    found = [
        _line(entry, measured[len(entry.pairs)], lines, run.task.metrics) for entry in many
    ]  # fmt: skip
    return {
        "lines": found,
        "breaks": breaking_points(found),
        "images": sum(line["n_sets"][name] for line in lines for name in line["n_sets"]),
        "pairs_measured": {str(n): len(own) for n, own in measured.items()},
    }


def breaking_points(lines: Sequence[Summary]) -> dict[str, int | None]:
    """The first size at which each method and order breaks; None where it never does.

    Broken is: ASR(free) under half of the best at smaller sizes, or ACC under half of the clean
    model's on the same pairs. A method's single backdoor counts for both orders. Sizes rise within
    a method.
    """
    found: dict[str, int | None] = {}
    for method in dict.fromkeys(line["title"] for line in lines):
        for order in ORDERS:
            own = [
                line for line in lines
                if line["title"] == method and (line["order"] == order or line["n"] == 1)
            ]  # fmt: skip
            best, broken = 0.0, None
            for line in own:
                lost = line["asr_free"] < best / 2 or line["acc"] < line["clean_acc"] / 2
                best = max(best, line["asr_free"])
                if lost and broken is None:
                    broken = line["n"]
            found[f"{method} {order}"] = broken
    return found


def _line(
    entry: ManyEntry,
    pairs: Sequence[Rebinding],
    rows: Sequence[Summary],
    metrics: Sequence[Metric],
) -> Summary:
    triggers = {pair.trigger for pair in pairs}
    (line,) = pooled([row for row in rows if row["method"] == entry.title], metrics)
    (clean,) = pooled(
        [row for row in rows if row["method"] == CONTROL and row["trigger"] in triggers], metrics
    )
    return {
        "title": entry.label,
        "order": entry.order,
        "clean_acc": clean["acc"],
        "clean_asr": clean["asr_free"],
        **line,
        "n": len(entry.pairs),
    }
