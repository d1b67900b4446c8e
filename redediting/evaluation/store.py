"""The one store of results: atomic units, resume, provenance, and a name that covers the code.

``runs/<experiment>/<name>/`` holds ``config.yaml`` (resolved), ``provenance.json``,
``rows.jsonl``, ``arrays/``, ``images/`` and, at the end, ``summary.json`` and ``report.html``. The
name is a digest of everything that decides a number: configuration, weights, schema and the
sources reachable from what measures (`redediting.evaluation.sources`), so that a folder never
mixes rows of different models or codes, and the same command continues a killed run.

``rows.jsonl`` is appended a *unit* at a time, in one write: its rows and a line that closes them.
A file whose writer was killed is mended on opening: a torn line and the rows of a unit that was
never closed are dropped, so that a run that continues ends with the same rows as one that never
stopped.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from redediting.config import Config
from redediting.errors import OutputError
from redediting.evaluation.sources import source_digest
from redediting.io import (
    check_writable,
    digest,
    replace_arrays,
    replace_json,
    replace_text,
    writing,
)

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 3  # of the folder; raise it when a row means something else under the same name
Row = dict[str, Any]
_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "open_clip_torch", "numpy")


class ResultStore:
    """A run folder that exists, ``runs/<experiment>/<name>``; `create` names and makes one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[Row]] = {}
        self._read()

    @classmethod
    def create(
        cls,
        root: Path,
        experiment: str,
        *,
        config: Config,
        base: str,
        measured_by: Iterable[object],
        device: str = "cpu",
        quick: bool = False,
        extra: Sequence[str] = (),
        write: bool = True,
    ) -> ResultStore:
        """Names the folder of a run below ``ROOT/EXPERIMENT``, makes it and mends it.

        The name covers the resolved ``config``, the fingerprint of the ``base`` model, the sources
        of modules and objects that it is ``measured_by`` and ``extra`` texts that decide a number,
        e.g. captions read from a file. Figures of a ``quick`` run may not be published. In a
        launch one process writes; the others only read.
        """
        resolved = config.model_dump(mode="json")
        code = source_digest(["redediting.evaluation.store", *measured_by])
        name = digest(json.dumps(resolved, sort_keys=True), base, code, str(SCHEMA), *extra)
        folder = Path(root) / experiment / name
        if write:
            check_writable(folder)
            with writing(folder):
                for part in ("arrays", "images"):
                    (folder / part).mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
            replace_text(folder / "config.yaml", text)
            made = provenance(device, base, code) | {"quick": quick, "schema_version": SCHEMA}
            replace_json(folder / "provenance.json", made)
        store = cls(folder)
        if write:
            store._mend()
        return store

    def __contains__(self, unit: object) -> bool:
        """Whether a unit is closed."""
        return unit in self._rows

    @property
    def done(self) -> list[str]:
        """Identifiers of the closed units, in the order written."""
        return list(self._rows)

    @property
    def images(self) -> Path:
        """The pictures."""
        return self.folder / "images"

    def rows(self, unit: str | None = None) -> list[Row]:
        """Rows of a closed unit, or of all, in the order written."""
        if unit is not None:
            return list(self._rows.get(unit, []))
        return [row for rows in self._rows.values() for row in rows]

    def append(
        self, unit: str, rows: Sequence[Row], *, arrays: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Writes a unit, whole or not at all: its arrays, then its rows and what closes them.

        Rows are JSON objects with finite numbers only. `OutputError` where a file cannot be
        written, or a unit of that name is closed already.
        """
        if unit in self._rows:
            raise OutputError(f"expected a new unit, got {unit!r}, which {self.folder} has")
        if arrays is not None:
            replace_arrays(self.array_file(unit), arrays)
        block = _block(unit, rows).encode()
        path = self.folder / "rows.jsonl"
        with writing(path), path.open("ab", buffering=0) as file:
            file.write(block)
            os.fsync(file.fileno())
        self._rows[unit] = [{"unit": unit, **row} for row in rows]

    def arrays(self, unit: str) -> dict[str, np.ndarray]:
        """Arrays of a unit by name; empty where it has none."""
        import numpy as np

        path = self.array_file(unit)
        if not path.is_file():
            return {}
        try:
            with np.load(path) as found:
                return {name: found[name] for name in found}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise OutputError(
                f"expected the arrays of {unit!r} in {str(path)!r}, got a damaged file; delete "
                f"rows.jsonl and arrays/ in {str(self.folder)!r} and run again: images are kept"
            ) from error

    def json(self, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
        """A JSON file of the folder, e.g. ``summary.json``; `OutputError` where a run lacks it."""
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"expected a finished run folder with {name}, got {str(self.folder)!r}; "
                "name one below runs/, or run the experiment to its end"
            ) from error

    def export(self, file: str | Path) -> Path:
        """Writes the run, finished or not, to one compressed file (``.tar.gz``)."""
        file = Path(file)
        part = file.with_name(f".{file.name}.part")
        with writing(file):
            with tarfile.open(part, "w:gz") as archive:
                archive.add(self.folder, arcname=f"{self.folder.parent.name}/{self.folder.name}")
            part.replace(file)
        return file

    @classmethod
    def load_export(cls, file: str | Path, root: str | Path) -> ResultStore:
        """Unpacks an exported run below ``root``; the same command continues it there."""
        root = Path(root)
        try:
            with tarfile.open(file, "r:gz") as archive:
                top = Path(archive.getnames()[0])
                if (root / top).exists():
                    raise OutputError(
                        f"expected no run at {str(root / top)!r}, got one; move it away first"
                    )
                with writing(root):
                    root.mkdir(parents=True, exist_ok=True)
                archive.extractall(root, filter="data")
        except (OSError, tarfile.TarError, IndexError, EOFError) as error:
            raise OutputError(
                f"expected an exported run, got {str(file)!r} ({error}); export it again"
            ) from error
        return cls(root / top)

    def array_file(self, unit: str) -> Path:
        """Where a unit's arrays lie."""
        return self.folder / "arrays" / f"{digest(unit)}.npz"

    def _read(self) -> None:
        path = self.folder / "rows.jsonl"
        waiting: list[Row] = []
        for line in (path.read_bytes() if path.exists() else b"").splitlines(keepends=True):
            row = _parse(line) if line.endswith(b"\n") else None
            if row is None:
                waiting = []
                continue
            waiting = [r for r in waiting if r["unit"] == row["unit"]]
            if "closed" not in row:
                waiting.append(row)
                continue
            if row["closed"] == len(waiting):
                self._rows[row["unit"]] = waiting
            waiting = []

    def _mend(self) -> None:
        """Drops from the file what is not of a closed unit."""
        path = self.folder / "rows.jsonl"
        whole = "".join(_block(unit, rows) for unit, rows in self._rows.items())
        if path.exists() and path.read_bytes() != whole.encode():
            replace_text(path, whole)


def provenance(device: str, base: str, code: str) -> dict[str, Any]:
    """What a result depends on besides its configuration."""
    import torch

    cuda = torch.device(device).type == "cuda"
    return {
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
        "commit": _commit(),
        "code": code,
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "base": base,
    }


def _commit() -> str | None:
    """The commit of the checkout, with a + when tracked files differ from it; None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return commit and commit + ("+" if changed else "")


def _block(unit: str, rows: Sequence[Row]) -> str:
    """The lines of a unit, and the one that closes it."""
    lines = [*({"unit": unit, **row} for row in rows), {"unit": unit, "closed": len(rows)}]
    return "".join(json.dumps(x, ensure_ascii=False, allow_nan=False) + "\n" for x in lines)


def _parse(line: bytes) -> Row | None:
    try:
        row: Row = json.loads(line)
        return row if isinstance(row, dict) and "unit" in row else None
    except ValueError:
        return None
