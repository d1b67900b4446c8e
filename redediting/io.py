"""Folders that are written whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redediting.errors import OutputError


@contextmanager
def atomic_folder(folder: Path, *, marker: str) -> Iterator[Path]:
    """Yields a temporary folder that takes the place of ``folder`` when the block succeeds.

    Args:
        folder: a new or empty folder, or one with a file named ``marker``, which is replaced.
        marker: the file by which an earlier result of the same kind is known.

    Raises:
        OutputError: the folder holds something else or cannot be written. Nothing is left behind.
    """
    folder = Path(folder).expanduser().absolute()
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    created: list[Path] = []
    try:
        _check_replaceable(folder, marker)
        created = _make_parents(folder)
        temporary.mkdir()
        yield temporary
        _replace(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in reversed(created):
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


def _make_parents(folder: Path) -> list[Path]:
    missing = [parent for parent in folder.parents if not parent.exists()]
    made = []
    try:
        for parent in reversed(missing):
            parent.mkdir()
            made.append(parent)
    except OSError:
        for parent in reversed(made):
            parent.rmdir()
        raise
    return made


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
