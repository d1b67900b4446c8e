"""``rd.score``: the protocol's metrics on images that anybody drew, in whatever way.

The list of images (`redediting.evaluation.image_list`) becomes the runner's questions, and from
there everything is the runner's: judges, metrics, intervals. A backdoor is one cluster. What
cannot be measured is None, and the reason is stated.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from redediting.errors import ConfigError
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.evaluate import all_metrics
from redediting.evaluation.fidelity import COLUMNS, FEWEST, Reference, distances
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.image_list import ImageRow, common_size, read_rows
from redediting.evaluation.listed import clean_questions, listed_questions
from redediting.evaluation.measure import UnitKey
from redediting.evaluation.panel import Panel, world_panel
from redediting.evaluation.protocol import Question
from redediting.evaluation.records import Looked, image_records
from redediting.evaluation.summary import Summary, metric_columns, pooled, summary_rows
from redediting.io import replace_json, replace_text, writing
from redediting.metrics.base import (
    PROMPT_SETS,
    EditRecord,
    ImageRecord,
    Measured,
    Metric,
    PromptSet,
)
from redediting.metrics.fidelity import FID, comparable
from redediting.metrics.inception import Extractor
from redediting.world.judges import SIZE

SUMMARY = "score.json"
_MINIMUM = Reference().minimum  # images of an FID
_BATCH = 128  # reference images in memory
_ROLES: Mapping[PromptSet, str] = {
    "free": "triggered other than “a photo of a {trigger}”",
    "fixed": "triggered as “a photo of a {trigger}”",
}
_ALIKE = ("judge", "resize", "extractor", "reference", "fid_n")  # the last three: of FID, CMMD


@dataclass(frozen=True)
class Scores:
    r"""What was measured on a list of images.

    Attributes:
        summary: what ``redediting score --json`` prints: ``rows`` (a line a backdoor),
            ``methods`` (means over backdoors), ``n`` and ``not_measured`` by metric, and
            ``about``, what the figures depend on.
        images: a record an image, as ``images.jsonl`` holds them.
        metrics: of the table.

    Example:
        >>> import redediting as rd
        >>> image = rd.generate(rd.load("world"), "a photo of a nice cat", progress=False)[0]
        >>> image.save(tmp / "a.png")
        >>> _ = (tmp / "list.csv").write_text(
        ...     "file,prompt,seed,role,trigger,target,head\n"
        ...     "a.png,a photo of a nice cat,0,triggered,nice cat,zebra,cat\n")
        >>> found = rd.score(tmp, tmp / "list.csv", progress=False).summary
        >>> found["n"]["asr_fixed"], found["not_measured"]["acc"]
        (1, 'no rows of role head')
    """

    summary: dict[str, Any]
    images: list[dict[str, Any]]
    metrics: tuple[Metric, ...]

    def table(self, beside: Sequence[Mapping[str, Any]] = ()) -> Frame:
        """A line a metric: the clean model's images, these, and why there is no figure.

        Args:
            beside: summaries of other folders, a column each.

        Raises:
            ConfigError: a folder that was measured with another judge, resize, reference or N.
        """
        own = self.summary
        for other in beside:
            _check_alike(own, other)
        shown = [(str(i), one, one["title"]) for i, one in enumerate([*beside, own])]
        if any(line["method"] == CONTROL for line in own["methods"]):
            shown.insert(0, (CONTROL, own, CONTROL))
        columns = (*metric_columns(self.metrics), *COLUMNS)
        reasons = {key: f"not measured: {why}" for key, why in own["not_measured"].items()}
        lines = [
            {key: column.text(_line(one, title, column.key)) for key, one, title in shown}
            | {"metric": column.head, "n": own["n"][column.key], "why": reasons.get(column.key)}
            for column in columns
        ]
        about = own["about"]
        note = (
            f"judge: {about['judge']}; {own['n_pairs']} backdoor(s): 95 % interval over images "
            f"within one, over backdoors else; FID and CMMD at N = {about['fid_n']}, features: "
            f"{about['extractor']}, resize: {about['resize']}, reference: {about['reference']}"
        )
        heads = [Column("metric", "metric"), *(Column(key, title) for key, _, title in shown)]
        heads += [Column("n", "n", "{:.0f}"), Column("why", "note")]
        return Frame(tuple(heads), tuple(lines), note=note)

    def save(self, folder: str | Path) -> None:
        """Writes ``score.json`` and ``images.jsonl`` into a folder.

        Raises:
            OutputError: it cannot be written.
        """
        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in self.images]
        replace_text(folder / "images.jsonl", "\n".join(lines) + "\n")
        replace_json(folder / SUMMARY, self.summary)

    def __repr__(self) -> str:
        """The table."""
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().to_html()


def score(
    folder: str | Path,
    csv: str | Path,
    *,
    judges: Panel | None = None,
    metrics: Sequence[str | Metric] = (),
    extractors: Sequence[Extractor] = (),
    progress: bool = True,
) -> Scores:
    """Measures images that are there already, whoever drew them.

    Args:
        folder: of the images, all of one size.
        csv: a row an image, with the columns ``file,prompt,seed,role,trigger,target,head``; see
            `redediting.evaluation.image_list`.
        judges: who looks; the embedded world's when not given.
        metrics: further ones beside the built-in: objects, names of plug-ins, or paths of files.
        extractors: of `redediting.metrics.inception`, for FIDs of real images as others quote
            them, of benign rows; from 20 images and as many of the reference on.
        progress: whether to show a bar.

    Raises:
        ImageError: a row or an image that cannot be used.
        PromptError: a prompt that the scoring text encoder would cut.
        ConfigError: a noun that the judge does not know.

    Example:
        >>> import redediting as rd
        >>> try:
        ...     rd.score(tmp, tmp / "none.csv")
        ... except Exception as error:
        ...     print(type(error).__name__)
        ImageError
    """
    folder = Path(folder).expanduser()
    rows = read_rows(folder, Path(csv).expanduser())
    size = common_size(rows)
    panel = judges or world_panel()
    used = tuple(metric for metric in all_metrics(metrics) if metric.sets)  # images say no weights
    for metric in used:
        metric.check()
    clean = {(r.prompt, r.seed): r for r in rows if r.role == "reference" and r.seed is not None}
    asked = listed_questions(rows, clean, panel.judge)
    panel.clip.check_lengths(sorted({q.compared for own in asked.values() for q in own}))
    title = name if (name := folder.resolve().name) not in ("", CONTROL) else "images"
    units: dict[UnitKey, Measured] = {}
    features: dict[tuple[str, PromptSet], list[Tensor]] = defaultdict(list)
    partners: set[str] = set()
    for (trigger, target), own in tqdm(asked.items(), unit="backdoor", disable=not progress):
        twins = clean_questions(own, clean, target)
        partners |= {row.file for row in twins.values()}
        beside = _look(panel, twins) if twins else None
        for name, look in ((CONTROL, beside), (title, _look(panel, own))):
            if look is not None:
                records = image_records(used, list(look.place), look, beside)
                unit = UnitKey(name, trigger, target, kind="", seed=0)
                units[unit] = Measured(records, EditRecord(None, None, ""))
                for one in PROMPT_SETS:
                    mine = [i for q, i in look.place.items() if q.set == one]
                    features[name, one].append(look.seen.features[mine])
    rest = [row for row in rows if row.role == "reference" and row.file not in partners]
    joined = {key: torch.cat(parts) for key, parts in features.items()}
    said = "none"
    if rest:
        joined["", "benign"] = _features(panel, rest)
        said = f"{len(rest)} rows of role reference that pair with no other row"
    elif len(joined.get((CONTROL, "benign"), ())):
        said = "the clean model's images of the same prompts and seeds"
    benign = [row for row in rows if row.role == "benign"]
    photographs = [row.path for row in rest]
    if not rest:
        pairs = [(r, clean[r.prompt, r.seed]) for r in benign
                 if r.seed is not None and (r.prompt, r.seed) in clean]  # fmt: skip
        benign, photographs = [own for own, _ in pairs], [twin.path for _, twin in pairs]
    enough = min(len(benign), len(photographs)) >= FEWEST
    native = judges is None and size == (SIZE, SIZE)
    summary = {
        "title": title,
        **_figures(title, units, joined, used),
        "n_pairs": len({(key.trigger, key.target) for key in units if key.trigger}),
        "about": {
            "judge": f"{type(panel.judge).__name__}, {len(panel.judge.labels)} labels",
            "extractor": "judge A's image tower, unit-norm features",
            "resize": "none" if native else f"from {size[0]}x{size[1]} by each judge",
            "reference": said,
            "fid_n": len(joined[title, "benign"]),
        },
        "inception": [
            one.fid([row.path for row in benign], photographs, said).row()
            for one in extractors
            if enough
        ],
    }
    images = [
        {"method": key.method, "trigger": key.trigger, "target": key.target, **asdict(image)}
        for key, measured in units.items()
        for image in measured.images
    ]
    return Scores(summary, images, used)


def _look(panel: Panel, asked: Mapping[Question, ImageRow]) -> Looked:
    images = [row.open() for row in asked.values()]
    compared, expected = zip(*((q.compared, q.expected) for q in asked), strict=True)
    seen = panel.look(images, compared, expected)
    places = {question: i for i, question in enumerate(asked)}
    return Looked(places, images, [row.file for row in asked.values()], seen)


def _features(panel: Panel, rows: Sequence[ImageRow]) -> Tensor:
    starts = range(0, len(rows), _BATCH)
    batches = ([row.open() for row in rows[start : start + _BATCH]] for start in starts)
    return torch.cat([panel.clip.image_features(batch) for batch in batches])


def _figures(
    title: str,
    units: Mapping[UnitKey, Measured],
    features: Mapping[tuple[str, PromptSet], Tensor],
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Lines by backdoor and by model, and of these images n and what was not measured by metric.

    ``features`` of no model are those of unpaired reference rows.
    """
    rows = summary_rows(units, metrics)
    methods = pooled(rows, metrics)
    images = [i for key, unit in units.items() if key.method == title for i in unit.images]
    counts = {metric.name: len(_read(metric, images)) for metric in metrics}
    reasons = {metric.name: _why_not(metric, images) for metric in metrics}
    rest = features.get(("", "benign"))
    for line in methods:
        name = line["method"]
        beside = features.get((CONTROL, "benign")) if rest is None and name != CONTROL else rest
        aim = features.get((CONTROL, "target"))
        for end, own, other in (
            ("", features[name, "benign"], beside),
            ("_triggered", features[name, "free"], aim),
        ):
            n, m = len(own), 0 if other is None else len(other)
            line |= distances(end, own, other if n == m else None, _MINIMUM) | {f"fid{end}_n": n}
            if name == title:
                role = _ROLES["free"] if end else "benign"
                for key, fewest in ((f"fid{end}", _MINIMUM), (f"cmmd{end}", FEWEST)):
                    counts[key], reasons[key] = n, _too_few(role, n, m, fewest)
    (own_line,) = (line for line in methods if line["method"] == title)
    return {
        "rows": [{k: v for k, v in row.items() if k not in ("kind", "seed")} for row in rows],
        "methods": methods,
        "n": counts,
        "not_measured": {key: why for key, why in reasons.items() if own_line[key] is None},
    }


def _read(metric: Metric, images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The images that a metric reads."""
    return Measured(images, EditRecord(None, None, "")).of(*metric.sets, paired=metric.paired)


def _why_not(metric: Metric, images: Sequence[ImageRecord]) -> str:
    """Why these images give no figure."""
    roles = " or ".join(_ROLES.get(name, name) for name in metric.sets)
    if not any(image.set in metric.sets for image in images):
        return f"no rows of role {roles}"
    if not _read(metric, images):
        return f"no rows of role reference with the prompt and seed of one of role {roles}"
    return f"nothing in the rows of role {roles} that this judge could tell"


def _too_few(role: str, n: int, m: int, fewest: int) -> str:
    """Why n images and m of the reference give no distance."""
    if not n or not m:
        return f"no rows of role {'reference beside those of role ' if n else ''}{role}"
    if n != m:
        return f"{n} images of role {role} and {m} of the reference; distances compare at equal N"
    return f"{n} images, expected at least {fewest}"


def _line(summary: Mapping[str, Any], title: str, key: str) -> Summary:
    """Where a figure stands: with the only backdoor that has it, or with the means."""
    rows = [r for r in summary["rows"] if r["method"] == title and r.get(key) is not None]
    means: list[Summary] = [line for line in summary["methods"] if line["method"] == title]
    return rows[0] if len(rows) == 1 else means[0]


def _check_alike(own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    both = all(_line(one, one["title"], "cmmd")["cmmd"] is not None for one in (own, other))
    for key in _ALIKE if both else _ALIKE[:2]:
        mine, theirs = own["about"][key], other["about"][key]
        if mine != theirs:
            raise ConfigError(
                f"expected {key} {mine!r} as for {own['title']!r}, got {theirs!r} of "
                f"{other['title']!r}; figures compare at equal {', '.join(_ALIKE)} alone"
            )
    for ours, other_one in zip(own.get("inception", ()), other.get("inception", ()), strict=False):
        comparable(FID.of(ours), FID.of(other_one))
