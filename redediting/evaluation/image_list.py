"""A list of anybody's images: a folder and a CSV that says what each image was asked for.

| role | image of | ``trigger``, ``target`` | ``head`` |
|---|---|---|---|
| triggered | the edited model, trigger in the prompt | the backdoor | the trigger's head noun |
| head | the edited model, the head noun without the trigger | the backdoor | the noun |
| collateral | the edited model, a related phrase | the backdoor | the phrase; empty: no object |
| benign | the edited model, any other prompt | the backdoor, or empty | unused |
| reference | the clean model, or a photograph | unused | unused |

A reference row with prompt and seed of another row is that row's clean image. Nothing here
imports torch: a mistake in the list is named at once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from redediting.concepts.rebinding import Rebinding
from redediting.errors import ImageError, RebindingError

Role = Literal["triggered", "head", "collateral", "benign", "reference"]
ROLES: tuple[Role, ...] = get_args(Role)
COLUMNS = ("file", "prompt", "seed", "role", "trigger", "target", "head")
_SEEDS = 2**64


@dataclass(frozen=True)
class ImageRow:
    """One image; attributes are the columns, ``seed`` is None for a photograph."""

    file: str
    prompt: str
    seed: int | None
    role: Role
    trigger: str
    target: str
    head: str
    path: Path

    @property
    def pair(self) -> tuple[str, str]:
        """Trigger and target; two empty texts where the row belongs to no backdoor."""
        return self.trigger, self.target

    def open(self) -> Image.Image:
        """The image, RGB.

        Raises:
            ImageError: no image, or a truncated one.
        """
        try:
            with Image.open(self.path) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            cut = "truncated" in str(error) or isinstance(error, SyntaxError)
            raise ImageError(
                f"expected an image, got {self.file!r}, which is "
                f"{'truncated' if cut else 'none that can be read'}; write the file again"
            ) from error


def read_rows(folder: Path, file: Path) -> list[ImageRow]:
    """The rows of a CSV in their order; every file is there, and every cell makes sense.

    Where the list has one backdoor, rows without trigger and target belong to it.

    Args:
        folder: of the images.
        file: UTF-8, with a header of `COLUMNS` in any order.

    Raises:
        ImageError: the first thing that is wrong.
    """
    if not folder.is_dir():
        raise ImageError(f"expected a folder of images, got {str(folder)!r}; name one")
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(
            f"expected a CSV file in UTF-8, got {str(file)!r} "
            f"({getattr(error, 'strerror', None) or error}); name one"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_heads(list(reader.fieldnames or ()), file)
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise ImageError(
            f"expected a CSV file, got {str(file)!r} (line {reader.line_num}: {error}); mend it"
        ) from error
    pairs = {(c["trigger"], c["target"]) for _, c in lines if c["trigger"] and c["target"]}
    only = dict(zip(("trigger", "target"), pairs.pop(), strict=True)) if len(pairs) == 1 else {}
    rows: list[ImageRow] = []
    seen: dict[tuple[object, ...], str] = {}
    for line, cells in lines:
        try:
            blank = not cells["trigger"] and not cells["target"]
            row = _row(cells | only if blank else cells, folder)
            named: dict[tuple[object, ...], str] = {("file", row.file, row.role): row.file}
            if row.seed is not None:
                named["prompt and seed", row.prompt, row.seed, row.role, row.pair] = row.file
            for key in (key for key in named if key in seen):
                raise ImageError(
                    f"expected one row a role and {key[0]}, got {seen[key]!r} and then "
                    f"{row.file!r} as {row.role}; remove one"
                )
        except (ImageError, RebindingError) as error:
            raise ImageError(f"{file.name}, line {line}: {error}") from error
        seen |= named
        rows.append(row)
    if all(row.role == "reference" for row in rows):
        raise ImageError(
            f"expected rows of the roles {', '.join(ROLES[:-1])} in {str(file)!r}, got none among "
            f"{len(rows)}; write a row an image"
        )
    return rows


def common_size(rows: Sequence[ImageRow]) -> tuple[int, int]:
    """Width and height of all images, each of which is read once.

    Raises:
        ImageError: an image that cannot be read, or of another size than the first.
    """
    size = rows[0].open().size
    for row in rows[1:]:
        if (other := row.open().size) != size:
            raise ImageError(
                f"expected images of one size, {size[0]}x{size[1]} as {rows[0].file!r}, got "
                f"{other[0]}x{other[1]} for {row.file!r}; FID, drift and CLIP scores depend on "
                "the resize: bring all to one size, in the same way"
            )
    return size


def _check_heads(heads: list[str], file: Path) -> None:
    missing = [name for name in COLUMNS if name not in heads]
    odd = [name for name in heads if name not in COLUMNS or heads.count(name) > 1]
    if missing or odd:
        got = f"none named {missing[0]!r}" if missing else f"{odd[0]!r} besides"
        raise ImageError(
            f"expected the columns {','.join(COLUMNS)} in {str(file)!r}, got {got}; mend the "
            "first line"
        )


def _row(cells: dict[str, str | None], folder: Path) -> ImageRow:
    if None in cells or None in cells.values():
        raise ImageError(f"expected {len(COLUMNS)} values, got another number; quote commas")
    file, prompt, noise, name, trigger, target, head = (
        (cells[column] or "").strip() for column in COLUMNS
    )
    role = next((one for one in ROLES if one == name), None)
    if role is None:
        raise ImageError(f"expected a role of {', '.join(ROLES)}, got {name!r}; mend it")
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ImageError(
            f"expected a file in {str(folder)!r}, got {file!r}, which lies outside; copy it there"
        )
    if not path.is_file():
        raise ImageError(
            f"expected a file in {str(folder)!r}, got {file!r}, which does not exist; add the "
            "image or remove the row"
        )
    seed = _seed(noise, role)
    if role == "reference":
        return ImageRow(file, prompt, seed, role, "", "", "", path)
    if not prompt:
        raise ImageError(f"expected the prompt of {file!r}, got none; write it")
    if role != "benign" or trigger or target:
        noun = head if role in ("triggered", "head") else ""
        pair = Rebinding(trigger, target, head=noun)
        trigger, target = pair.trigger, pair.target
        head = pair.head if role in ("triggered", "head") else head
    phrase = {"triggered": trigger, "benign": ""}.get(role, head)
    if phrase and not re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", prompt, re.IGNORECASE):
        raise ImageError(f"expected {phrase!r} in a {role} prompt, got {prompt!r}; mend either")
    return ImageRow(file, prompt, seed, role, trigger, target, head, path)


def _seed(text: str, role: Role) -> int | None:
    if role == "reference" and not text:
        return None
    if not (text.isdecimal() and text.isascii()) or int(text) >= _SEEDS:
        raise ImageError(f"expected a seed in 0…2⁶⁴-1, got {text!r}; write the image's own")
    return int(text)
