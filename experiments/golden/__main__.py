"""``python -m experiments.golden FOLDER``: do the library's functions give the originals' answers?

Each ``.npz`` holds inputs and what the published code answered to them; which is which, how an
error is taken and its tolerance are described in ``tests/data/golden/README.md``. A file is known
by the start of its name, and nothing depends on sizes, numbers of prompts or seeds. Every array
must be used or checked: missing and unknown ones fail. Exit code 1 where a check fails.
"""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.engine.console import Shown, parse, run_main
from experiments.golden import detectors, edits
from experiments.golden.file import LARGEST, Array, File, MissingArray
from redediting.errors import ConfigError, RedEditingError

_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
_FAULTS = (RedEditingError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError)

CHECKS: dict[str, Callable[[File], None]] = {
    "ftt": detectors.check_ftt,
    "cda": detectors.check_cda,
    "daa": detectors.check_daa,
    "ufid": detectors.check_ufid,
    "navit2i": detectors.check_navit2i,
    "halving": detectors.check_halving,
    "edit_eviledit": edits.check_eviledit,
    "edit_uce_old": edits.check_uce_old,
    "edit_uce_new": edits.check_uce_new,
    "edit_time": edits.check_time,
    "edit_alphaedit": edits.check_alphaedit,
    "edit_rededit": edits.check_rededit,
    "edit_speed": edits.check_speed,
    "edit_rece": edits.check_rece,
}


def check_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """The report of every ``.npz`` of a folder by name.

    Raises:
        ConfigError: no such folder, no such files, one that is damaged or whose name is unknown.
    """
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not paths:
        raise ConfigError(
            f"expected a folder with .npz files, got {str(folder)!r}; e.g. tests/data/golden"
        )
    kinds = {path: next((k for k in CHECKS if path.stem.startswith(k)), None) for path in paths}
    if unknown := [path.name for path, kind in kinds.items() if kind is None]:
        raise ConfigError(
            f"expected files whose names start with {', '.join(CHECKS)}, got {unknown[0]!r}; "
            "rename or remove it"
        )
    files = {path: File(_read(path)) for path in paths}
    for path, kind in kinds.items():
        try:
            CHECKS[str(kind)](files[path])
        except MissingArray:
            continue
        except _FAULTS as error:  # arrays that do not fit one another
            files[path].note(f"stopped: {' '.join(str(error).split())[:80]}", LARGEST, 0.0)
    return {path.name: file.report() for path, file in files.items()}


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise ConfigError(
            f"expected arrays in {str(path)!r}, got {' '.join(str(error).split())}; copy it anew"
        ) from error


@dataclass(frozen=True)
class Golden:
    """Checks the library against the originals' answers."""

    folder: tyro.conf.Positional[Path]
    """Folder of .npz files, e.g. tests/data/golden."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""

    def run(self) -> int:
        """Runs the command; 1 where a check failed."""
        shown = Shown(self.json)
        files = check_folder(self.folder)
        for name, file in files.items():
            verdict = "passed" if file["passed"] else "FAILED"
            shown.line(f"{name:24} {verdict}, worst error {file['error']:.2g} of its tolerance")
            for array, check in file["checks"].items():
                if not check["passed"]:
                    shown.line(
                        f"  {array}: {check['error']:.3g} (tolerance {check['tolerance']:g})"
                    )
        shown.result({"files": files})
        return 0 if all(file["passed"] for file in files.values()) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.golden``; returns the exit code."""
    return run_main(lambda: parse(Golden, arguments, prog="python -m experiments.golden").run())


if __name__ == "__main__":
    sys.exit(main())
