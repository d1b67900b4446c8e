"""Run folders and how files get into them: whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from redediting.errors import OutputError

_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "open_clip_torch", "numpy")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a file system's refusal into one line that names the path.

    Raises:
        OutputError: instead of any OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"expected to be able to write {str(path)!r}, got {error.strerror or error}; "
            "name another place or free this one"
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        OutputError: the place cannot be written.
    """
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all (temporary file beside it, then rename).

    Raises:
        OutputError: the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def replace_json(path: Path, data: object) -> None:
    """Writes indented JSON, whole or not at all.

    Raises:
        OutputError: the place cannot be written.
    """
    replace_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_writable(folder: Path) -> None:
    """Makes sure that something can be written at or below a folder, leaving nothing behind.

    Raises:
        OutputError: it cannot.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing(folder):
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place.name} is not a folder")
        with tempfile.TemporaryFile(dir=place):
            pass


def code_digest(*packages: str) -> str:
    """Returns a hash of packages' sources and packaged text: rows are theirs alone.

    Args:
        packages: by name; the library alone when none is given.
    """
    total = sha256()
    for package in packages or ("redediting",):
        root = Path(str(resources.files(package)))
        for path in sorted([*root.rglob("*.py"), *root.rglob("*.yaml")]):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def provenance(device: str, base: str) -> dict[str, Any]:
    """Returns what a result depends on besides its configuration.

    Args:
        device: torch device of the run.
        base: fingerprint of the clean model.
    """
    cuda = torch.device(device).type == "cuda"
    return {
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
        "commit": _commit(),
        "code": code_digest(),
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
