"""The one row schema: a row an image, closed by a row for the edit that drew them.

``rows.jsonl`` is appended a *unit* at a time (one method, pair and seed), in one write. A file
whose writer was killed is mended on opening: a torn line and the rows of a unit that was never
closed are dropped, so that a run that continues ends with the same rows as one that never stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.engine.folder import replace_text, writing

# what a row means; raise it when the runner measures something else under the same name
SCHEMA = 2

Set = Literal["free", "fixed", "head", "collateral", "benign", "target"]
SETS: tuple[Set, ...] = ("free", "fixed", "head", "collateral", "benign", "target")


@dataclass(frozen=True)
class Unit:
    """What one edit is measured on: a method, a pair and a seed."""

    method: str
    trigger: str
    target: str
    kind: str
    seed: int

    @property
    def key(self) -> str:
        """Names the unit in rows and files."""
        return f"{self.method}/{self.trigger}/{self.target}/{self.seed}"


@dataclass(frozen=True)
class ImageRow:
    """One image, what was asked for and what the judges saw.

    Attributes:
        method: title of the method.
        trigger: phrase of the pair.
        target: phrase of the pair.
        kind: of the trigger.
        seed: of the run.
        set: prompt set.
        index: within the set.
        prompt: as drawn.
        noise: seed of the image's noise.
        phrase: what the prompt is about.
        role: of a collateral phrase, else empty.
        expected: concept that counts as a hit; None where the prompt names no object.
        label: judge B's verdict.
        label_a: judge A's.
        clean_label: judge B's verdict on the clean model's image of the same prompt and noise.
        clip: CLIP score (judge A) with the prompt; on triggered prompts with the target prompt.
        drift: 1 - cosine (judge A's features) to the clean model's image, same prompt and noise.
        image: file name under ``images/``.
        clean_image: the clean model's.
        seen: judge B's other verdicts by head (``colour``, ``place``, ``style``); empty where it
            names objects only.
        asked: what the prompt, or on triggered prompts the target and the context, says of them.
    """

    method: str
    trigger: str
    target: str
    kind: str
    seed: int
    set: Set
    index: int
    prompt: str
    noise: int
    phrase: str
    role: str
    expected: str | None
    label: str
    label_a: str
    clean_label: str
    clip: float
    drift: float
    image: str
    clean_image: str
    seen: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> list[bool]:
        """Which of the context's attributes (place, style), where asked for, judge B sees."""
        return [
            self.seen[head] == self.asked[head]
            for head in ("place", "style")
            if head in self.asked and head in self.seen
        ]

    @property
    def transferred(self) -> bool | None:
        """Whether object and colour of the target are both there; None where it names none."""
        if "colour" not in self.asked or "colour" not in self.seen:
            return None
        return self.hit and self.seen["colour"] == self.asked["colour"]

    @property
    def hit(self) -> bool:
        """Whether judge B saw what was expected."""
        return self.expected is not None and self.label == self.expected

    @property
    def clean_hit(self) -> bool:
        """Whether judge B saw it in the clean model's image."""
        return self.expected is not None and self.clean_label == self.expected


@dataclass(frozen=True)
class EditRow:
    """The edit itself; written last, it closes its unit.

    Attributes:
        method: title of the method.
        trigger: phrase of the pair.
        target: phrase of the pair.
        kind: of the trigger.
        seed: of the run.
        seconds: wall time of computing the edit; None where it was found, not made.
        footprint: Frobenius norm of the change over that of the text projections' weights.
        weights: fingerprint of what drew the images.
        images: how many image rows precede it.
        rank: of the change; None where it was not measured.
        energy: share of what ordinary captions read that the edit changed, squared; likewise.
        set: always ``edit``.
    """

    method: str
    trigger: str
    target: str
    kind: str
    seed: int
    seconds: float | None
    footprint: float
    weights: str
    images: int
    rank: int | None = None
    energy: float | None = None
    set: Literal["edit"] = "edit"


Row = ImageRow | EditRow


def unit_of(row: Row) -> Unit:
    """Returns the unit a row belongs to."""
    return Unit(row.method, row.trigger, row.target, row.kind, row.seed)


class RowFile:
    """``rows.jsonl`` of a run folder.

    Attributes:
        path: the file.
        rows: what it holds, complete units only, in the order written.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file; `mend` removes from disk what a killed writer left."""
        self.path = path
        self.rows, self._whole = _read(path)

    @property
    def done(self) -> set[Unit]:
        """The units that are complete."""
        return {unit_of(row) for row in self.rows if isinstance(row, EditRow)}

    def mend(self) -> None:
        """Rewrites the file without torn lines and unclosed units, if it has any."""
        if not self._whole:
            replace_text(self.path, "".join(_line(row) for row in self.rows))
            self._whole = True

    def append(self, rows: Sequence[Row]) -> None:
        """Adds a unit, its image rows closed by its edit row, in one write.

        Raises:
            OutputError: the file cannot be written.
        """
        block = "".join(_line(row) for row in rows).encode()
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            file.write(block)
            os.fsync(file.fileno())
        self.rows.extend(rows)


def _line(row: Row) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _read(path: Path) -> tuple[list[Row], bool]:
    """Rows of complete units, and whether the file holds nothing else."""
    text = path.read_bytes() if path.exists() else b""
    rows: list[Row] = []
    open_rows: list[Row] = []
    for line in text.splitlines(keepends=True):
        row = _parse(line) if line.endswith(b"\n") else None
        if row is None:
            open_rows = []
            continue
        open_rows = [r for r in open_rows if unit_of(r) == unit_of(row)]
        open_rows.append(row)
        if isinstance(row, EditRow):
            if row.images == len(open_rows) - 1:
                rows += open_rows
            open_rows = []
    return rows, len(rows) == text.count(b"\n") and (not text or text.endswith(b"\n"))


def _parse(line: bytes) -> Row | None:
    try:
        data: dict[str, Any] = json.loads(line)
        return EditRow(**data) if data["set"] == "edit" else ImageRow(**data)
    except (ValueError, TypeError, KeyError):
        return None
