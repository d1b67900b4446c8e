"""``rd.evaluate``: attacks, patches or suspects beside the clean model, as one resumable run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from redediting.attacks import ATTACKS
from redediting.attacks.base import Attack
from redediting.concepts.rebinding import Rebinding, as_rebindings
from redediting.config import Config
from redediting.errors import ConfigError
from redediting.evaluation.entries import CONTROL, AttackEntry, Entry, PatchEntry, SuspectEntry
from redediting.evaluation.fidelity import COLUMNS, NOTHING, Reference, fidelity
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.measure import Run, Task, run_task
from redediting.evaluation.panel import Panel, world_panel
from redediting.evaluation.protocol import Counts
from redediting.evaluation.summary import Summary, metric_columns, pooled, summary_rows
from redediting.io import check_writable, replace_json
from redediting.metrics import METRICS
from redediting.metrics.base import Metric
from redediting.models.model import Model, as_model
from redediting.models.sampler import Sampler
from redediting.patch.patch import Patch

if TYPE_CHECKING:
    import pandas as pd

HEADLINE = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "seconds")


class EvaluationConfig(Config):
    """What `evaluate` was asked for; the run's name covers all of it."""

    model: str
    rebindings: tuple[dict[str, str], ...]
    seeds: tuple[int, ...]
    counts: Counts
    sampler: Sampler
    metrics: tuple[str, ...]
    reference: Reference


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        run: its folder and task.
        rows: one line an entry, rebinding and seed.
        methods: one line an entry: means over rebindings, intervals over rebindings.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> few = rd.Counts(free=2, fixed=1, head=1, phrases=1, collateral=1, benign=2)
        >>> results = rd.evaluate(model, rd.attacks.EvilEdit(), pair, out=tmp, counts=few,
        ...                       sampler=rd.Sampler(steps=2), progress=False)
        >>> [row["trigger"] for row in results.rows], results.table().rows[0]["method"]
        (['beautiful cat', 'beautiful cat'], 'clean')
    """

    run: Run
    rows: list[Summary]
    methods: list[Summary]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.store.folder

    def table(self, *, full: bool = False) -> Frame:
        """One line an entry: mean over rebindings and 95 % interval over them.

        Args:
            full: every metric, and FID and CMMD; without it the headline ones and those that are
                not built in.
        """
        own = [m for m in self.run.task.metrics if full or _shown(m)]
        columns = [Column("method", "method"), *metric_columns(own), *(COLUMNS if full else ())]
        columns.append(Column("n", "n", "{:.0f}", meaning="triggered held-out captions"))
        seeds, pairs = len(self.run.task.seeds), len(self.run.task.rebindings)
        note = (
            f"{pairs} rebinding(s), {seeds} seed(s); mean over rebindings, 95 % interval over "
            "rebindings; n: triggered held-out captions"
        )
        return Frame(tuple(columns), tuple(self.methods), note=note)

    def to_pandas(self) -> pd.DataFrame:
        """One line an entry, rebinding and seed."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def save(self, path: str | Path) -> Path:
        """Writes rows and means as JSON; `OutputError` where the file cannot be written."""
        path = Path(path)
        replace_json(path, {"rows": self.rows, "methods": self.methods})
        return path

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().to_html()


def evaluate(
    model: Model,
    entries: Any,  # noqa: ANN401 - attacks, patches or models, one or several
    rebindings: Rebinding | Sequence[Rebinding],
    *,
    out: str | Path = "runs",
    seeds: Sequence[int] = (0,),
    counts: Counts | None = None,
    sampler: Sampler | None = None,
    metrics: Sequence[str | Metric] = (),
    judges: Panel | None = None,
    captions: Sequence[str] | None = None,
    progress: bool = True,
) -> Results:
    """Measures attacks, patches or suspects beside the clean model. A killed run continues.

    Args:
        model: clean.
        entries: attacks, patches, or models under suspicion; the clean control is added.
        rebindings: the backdoors.
        out: where the run folder lies, ``OUT/evaluate/NAME``.
        seeds: each fixes noise and the draw of contexts and captions.
        counts: images a rebinding, seed and model.
        sampler: how images are drawn; the model's own when not given.
        metrics: further ones beside the built-in: objects, names of plug-ins, or paths of files.
        judges: who looks; the embedded world's when not given, for the world alone.
        captions: of a real model; the world's scenes when not given.
        progress: whether to show a bar.

    Raises:
        ConfigError: a real model without judges, entries of one title, or a target that the judge
            does not know.
        OutputError: the folder cannot be written.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> few = rd.Counts(free=2, fixed=1, head=1, phrases=1, collateral=1, benign=2)
        >>> found = rd.evaluate(model, rd.attacks.EvilEdit(), pair, out=tmp, counts=few,
        ...                     sampler=rd.Sampler(steps=2), progress=False)
        >>> [line["method"] for line in found.methods]
        ['clean', 'eviledit']
    """
    model, rebindings = as_model(model), tuple(as_rebindings(rebindings))
    made = _entries(entries)
    if not rebindings or len(made) < 2:
        raise ConfigError(
            f"expected at least one rebinding and one attack, patch or model, got "
            f"{len(rebindings)} and {len(made) - 1}; name one of each"
        )
    if judges is None and not (model.card and model.card.embedded):
        raise ConfigError(
            f"expected judges for {model.name or 'this model'!r}, got none; the embedded world's "
            "know its concepts only: name some, e.g. of redediting.evaluation.panel"
        )
    check_writable(Path(out))
    used = all_metrics(metrics)
    config = EvaluationConfig(
        model=model.name,
        rebindings=tuple(asdict(rebinding) for rebinding in rebindings),
        seeds=seeds,  # whatever is given is checked
        counts=counts or Counts(),
        sampler=sampler or model.sampler,
        metrics=tuple(metric.name for metric in used),
        reference=Reference(images="renders" if judges is None else "clean"),
    )
    task = Task(
        rebindings, config.seeds, config.counts, config.sampler, used,
        captions=None if captions is None else tuple(captions),
    )  # fmt: skip
    panel = judges or world_panel()
    run = run_task("evaluate", config, task, model, panel, made, out=Path(out), progress=progress)
    results = summarised(run, config.reference)
    summary = {
        "experiment": "evaluate", "model": model.name, "rows": results.rows,
        "methods": results.methods, "claims": {}, "n_pairs": len(rebindings),
        "n_seeds": len(config.seeds),
    }  # fmt: skip
    if PartialState().is_main_process:  # `redediting report FOLDER` reads it
        replace_json(results.folder / "summary.json", summary)
    return results


def summarised(run: Run, reference: Reference) -> Results:
    """The results of a finished run."""
    rows = summary_rows(run.units, run.task.metrics)
    distances = fidelity(run, reference)
    lines = pooled(rows, run.task.metrics)
    return Results(run, rows, [line | distances.get(line["method"], NOTHING) for line in lines])


def all_metrics(further: Sequence[str | Metric] = ()) -> tuple[Metric, ...]:
    """The built-in metrics and installed plug-ins, then further ones by name, path or object."""
    found = [METRICS.make(name) for name in METRICS if METRICS.get(name).always]
    found += [one if isinstance(one, Metric) else METRICS.make(one) for one in further]
    return tuple({metric.name: metric for metric in found}.values())


def _entries(given: Any) -> list[Entry]:  # noqa: ANN401 - as above
    items = list(given) if isinstance(given, list | tuple) else [given]
    found: list[Entry] = [AttackEntry(ATTACKS.make(CONTROL))]
    for item in items:
        if isinstance(item, Attack):
            found.append(AttackEntry(item))
        elif isinstance(item, Patch):
            found.append(PatchEntry(item.provenance.method, item))
        elif isinstance(item, Model):
            found.append(SuspectEntry(item.name or "suspect", item))
        else:
            raise ConfigError(
                f"expected attacks, patches or models to evaluate, got {type(item).__name__}; "
                "load a folder first: Patch.load, rd.load"
            )
    found = [found[0], *(entry for entry in found[1:] if not entry.control)]
    seen = Counter[str]()
    for entry in found:  # two settings of one attack are told apart by number
        title = entry.title
        seen[title] += 1
        if seen[title] > 1:
            entry.title = f"{title} {seen[title]}"
    return found


def _shown(metric: Metric) -> bool:
    return metric.name in HEADLINE or not type(metric).__module__.startswith("redediting.")
