"""``redediting score``: the protocol's metrics on images that anybody drew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from experiments.commands.common import check
from experiments.engine.console import JudgeOptions, Shown, pick_device
from redediting.errors import ConfigError
from redediting.evaluation.image_list import ImageRow, read_rows
from redediting.io import atomic_folder

if TYPE_CHECKING:
    from redediting.metrics.vqa import VQA

SUMMARY = "score.json"


@dataclass(frozen=True, kw_only=True)
class Score(JudgeOptions):
    """Measures a folder of images: ASR, ACC, PSR, collateral, CLIP scores, drift, FID, CMMD."""

    folder: tyro.conf.Positional[Path]
    """Folder of the images, all of one size."""
    csv: Path
    """A row an image, with the columns file,prompt,seed,role,trigger,target,head; role: triggered,
    head, collateral, benign, reference (the clean model's, or photographs)."""
    config: Path | None = None
    """Attack configuration whose judge, CLIP model, further metrics and Inception weights are
    taken, e.g. configs/attack/sd15.yaml; the embedded world's when not given."""
    beside: tuple[Path, ...] = ()
    """Folders that earlier calls wrote with --out, a column each."""
    out: Path | None = None
    """Folder for score.json and images.jsonl, a line an image."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Measures and shows."""
        check(device=self.device, config=self.config, out=self.out)
        earlier = [_read(folder / SUMMARY) for folder in self.beside]
        rows = read_rows(self.folder, self.csv)  # its faults shall be named before torch is there
        from experiments.engine.real_models import SCORES, JudgeChoice
        from redediting.evaluation.frame import Column, Frame
        from redediting.evaluation.panel import WorldJudge, open_panel
        from redediting.evaluation.score import score
        from redediting.metrics.vqa import VQA

        base = None
        if self.config is not None:
            from experiments.engine.specs import AttackConfig
            from redediting.config import load_config

            base = load_config(self.config, AttackConfig)
        judge = (self.choice() or (base.judge if base else JudgeChoice())).build()
        shown = Shown(self.json)
        if isinstance(judge, VQA):
            return _answered(judge, rows, shown)
        device, panel = pick_device(self.device), None
        if not isinstance(judge, WorldJudge):
            panel = open_panel(judge, base.scores if base else SCORES, device)
        inception = base.inception.extractors(device) if base and base.inception else []
        with atomic_folder(self.out, marker=SUMMARY) if self.out else nullcontext() as folder:
            found = score(
                self.folder, self.csv, judges=panel, metrics=base.metrics if base else (),
                extractors=inception, progress=shown.progress,
            )  # fmt: skip
            table = found.table(earlier)
            if folder is not None:
                found.save(folder)
        shown.frame(table)
        if lines := found.summary["inception"]:
            shown.frame(Frame(tuple(Column(key, key) for key in lines[0]), tuple(lines)))
        shown.result(found.summary | {"out": self.out.as_posix() if self.out else None})
        return 0


def _answered(judge: VQA, rows: Sequence[ImageRow], shown: Shown) -> int:
    """Writes the questions about images, or reads the answers to them."""
    from redediting.evaluation.frame import Column, Frame
    from redediting.metrics import vqa
    from redediting.metrics.base import entry, mean

    if judge.questions is None:
        raise ConfigError(
            "expected a file for the judge's questions, got none; name it: --judge-option "
            "questions=FILE.jsonl"
        )
    if not judge.questions.exists():
        asked = [
            question
            for row in rows
            if row.role in ("triggered", "head")
            for question in vqa.ask(
                row.file, row.prompt, trigger=row.trigger, head=row.head, target=row.target
            )
        ]
        vqa.write_questions(judge.questions, asked)
        shown.line(
            f"{len(asked)} questions: {judge.questions}; let a model answer them, then name its "
            "file: --judge-option answers=FILE"
        )
        shown.result({"questions": judge.questions.as_posix(), "n": len(asked)})
        return 0
    questions = vqa.read_questions(judge.questions)
    known = {row.file for row in rows}
    if odd := [question.image for question in questions if question.image not in known]:
        raise ConfigError(
            f"expected questions about images of the list, got {odd[0]!r} in "
            f"{str(judge.questions)!r}; remove them, or name the list they were made from"
        )
    if judge.answers is None:
        raise ConfigError(
            f"expected answers to the questions in {str(judge.questions)!r}, got none; name their "
            "file: --judge-option answers=FILE"
        )
    found = vqa.yes_rates(questions, vqa.read_answers(judge.answers, questions))
    lines: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for rate, own in found.items():
        interval = mean(list(own.values()))
        figures |= entry(rate, interval) | {f"{rate}_n": len(own)}
        lines.append({"metric": rate, "value": interval and interval.value, "n": len(own)})
    columns = (Column("metric", "yes rate"), Column("value", "value", "{:.1%}"))
    shown.frame(Frame((*columns, Column("n", "images", "{:.0f}")), tuple(lines)))
    shown.result({"judge": judge.name, **figures, "images": found})
    return 0


def _read(path: Path) -> Any:  # noqa: ANN401 - what `Scores.save` wrote
    try:
        found = json.loads(path.read_text("utf-8"))
        found["about"], found["methods"], found["rows"], found["title"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"expected a folder that `redediting score --out` wrote, got {str(path.parent)!r}; "
            "score its images again"
        ) from error
    return found
