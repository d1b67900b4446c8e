"""Weight files of other tools: found below a place, read by tensor, checked for wholeness.

Files are recognised by what they hold, never by what they are called. Pickles are read with
``weights_only=True`` alone: one that would run code is refused.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from redediting.errors import ModelError
from redediting.io import one_line
from redediting.models.sources import INDEX
from redediting.patch.files import MANIFEST

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_ORIGINAL = "model.diffusion_model."
Lazy = Callable[[], Tensor]


def weight_files(place: Path) -> list[Path]:
    """A file itself, or the weights below a folder: safetensors wherever they lie, else pickles.

    Raises:
        ModelError: none, or a shard that an index names is missing.
    """
    if place.is_file():
        return [place]
    shards = [
        index.parent / name
        for index in sorted(place.rglob("*.safetensors.index.json"))
        for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    ]
    indexed = {file.parent for file in shards}
    files = shards + [
        file for file in sorted(place.rglob("*.safetensors")) if file.parent not in indexed
    ]
    files = files or sorted(x for suffix in PICKLES for x in place.rglob(f"*{suffix}"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise ModelError(
            f"expected {INDEX}, {MANIFEST} or weights in {str(place)!r}, got "
            + (f"no {missing[0]}" if missing else "none")
            + "; the download may have stopped half-way: fetch it again"
        )
    return files


def stored_tensors(file: Path) -> dict[str, Lazy]:
    """A file's tensors by name, each read when it is asked for where the format allows it.

    Raises:
        ModelError: another kind of file, a damaged one, one that holds other things than named
            tensors, or a pickle that would run code.
    """
    if file.suffix != ".safetensors":
        return {key: tensor.detach for key, tensor in _unpickled(file).items()}
    try:
        reader = safe_open(file, framework="pt")
        return {key: partial(reader.get_tensor, key) for key in reader.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file, error) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """All of `stored_tensors`, read.

    Raises:
        ModelError: as there.
    """
    return {name: read() for name, read in stored_tensors(file).items()}


def check_same_shapes(
    ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]], *, partial: bool
) -> None:
    """Makes sure that weights belong to an architecture.

    Args:
        ours: shapes of the clean model by parameter name.
        theirs: shapes of the suspect.
        partial: whether parameters may be missing.

    Raises:
        ModelError: unknown, missing or differently shaped parameters.
    """
    remedy = "name the model that it was made from with --model or --base"
    if any(name.startswith(_ORIGINAL) for name in theirs):
        raise ModelError(
            f"expected diffusers' parameter names, got an original checkpoint ({_ORIGINAL}…); "
            "convert it with diffusers' convert_original_stable_diffusion_to_diffusers.py"
        )
    unknown = [name for name in theirs if name not in ours]
    missing = [] if partial else [name for name in ours if name not in theirs]
    if unknown or missing or not theirs:
        first = repr(missing[0]) if missing else "like any of them"
        what = f"the unknown {unknown[0]!r}" if unknown else f"none named {first}"
        raise ModelError(
            f"expected parameters of the clean model's architecture, got {what} "
            f"({len(unknown)} unknown, {len(missing)} missing); {remedy}"
        )
    for name, shape in theirs.items():
        if shape != ours[name]:
            raise ModelError(
                f"expected {name} of shape {ours[name]}, got {shape}: the suspect has another "
                f"architecture; {remedy}"
            )


def _unpickled(file: Path) -> dict[str, Tensor]:
    if file.suffix not in PICKLES:
        raise ModelError(
            f"expected weights as .safetensors or {', '.join(PICKLES)}, got {file.name!r}; "
            "name a file of one of these"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's notes on old protocols: it loads, or raises
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"expected tensors only in {str(file)!r}, got a pickle that asks to run code, which "
            "is refused; ask for a safetensors file"
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise _damaged(file, error) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ModelError(
            f"expected tensors by name in {str(file)!r}, got {type(found).__name__}; save "
            "unet.state_dict()"
        )
    return dict(found)


def _damaged(file: Path, error: Exception) -> ModelError:
    return ModelError(
        f"expected whole tensors in {str(file)!r}, got a damaged or truncated file "
        f"({one_line(error)}); download it again"
    )
