"""Files and folders that are written whole or not at all, and fingerprints of tensors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from redediting.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns any OSError inside into an `OutputError`, one line that names the path."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"expected to be able to write {str(path)!r}, got {error.strerror or error}; "
            "name another place or free this one"
        ) from error


def replace_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all (temporary file beside it, then rename)."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    replace_bytes(path, text.encode())


def replace_json(path: Path, data: object) -> None:
    """Writes indented JSON, whole or not at all."""
    replace_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def replace_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as ``.npz``, whole or not at all."""
    import numpy as np

    data = BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no mapping
    replace_bytes(path, data.getvalue())


def cache_folder() -> Path:
    """``$REDEDITING_CACHE``, else ``redediting`` in the platform's cache folder."""
    named = os.environ.get("REDEDITING_CACHE")
    home = Path.home()
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "redediting"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "redediting"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "redediting"


def check_writable(folder: Path) -> None:
    """Makes sure that something can be written at or below a folder, leaving nothing behind."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing(folder):
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place.name} is not a folder")
        with tempfile.TemporaryFile(dir=place):
            pass


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (64 digits) of named tensors, over each one's name, dtype, shape and bytes.

    The order of the mapping and the device do not matter; one changed bit does.
    """
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def digest(*parts: str) -> str:
    """12 hexadecimal digits that name a combination of texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def atomic_folder(folder: Path, *, marker: str) -> Iterator[Path]:
    """Yields a temporary folder that takes the place of ``folder`` when the block succeeds.

    Only a new or empty folder, or an earlier result, known by its file ``marker``, is replaced.
    `OutputError` where it holds something else or cannot be written; then nothing is left behind.
    """
    folder = Path(folder).expanduser().absolute()
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        _check_replaceable(folder, marker)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        _replace(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise OutputError(
                f"expected a writable output folder, got {str(folder)!r} "
                f"({error.strerror or error}); choose another"
            ) from error
        raise


def _check_replaceable(folder: Path, marker: str) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise OutputError(
            f"expected a new or empty folder or an earlier result with {marker}, got "
            f"{str(folder)!r} with other files; choose another"
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"expected a folder, got the file {str(folder)!r}; choose another")


def _replace(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f"{temporary.name}.old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
