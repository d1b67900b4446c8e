"""Text projections by name, from a model, a folder or a file: tensors only, no metadata.

Files are recognised by what they hold, never by what they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from defenses.audit.rounding import rounding
from defenses.audit.thresholds import CUTOFFS, Cutoffs
from redediting.errors import ModelError
from redediting.models.cards import load_cards
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.files import MANIFEST
from redediting.patch.patch import Patch
from redediting.suspects import PICKLES, open_suspect, read_weights

_MARKS = (".attn2.to_k.weight", ".attn2.to_v.weight")
_ROOT = ("down_blocks", "mid_block", "up_blocks")


def base_weights(model: Model) -> dict[str, Tensor]:
    """The text projections of a loaded pipeline; they share its memory."""
    return model.weights()


@dataclass(frozen=True)
class SuspectTensors:
    """What an audit reads of a suspect.

    Attributes:
        projections: its text projections, named as the base names them and in the base's order.
        others: tensors of UNet and text encoder beside them that are not the base's; a rounded
            copy is no change.
    """

    projections: Mapping[str, Tensor]
    others: tuple[str, ...]


def read_suspect(
    suspect: str | Path, base: Model, *, cutoffs: Cutoffs = CUTOFFS
) -> SuspectTensors:
    """Reads a suspect, once.

    What it leaves out counts as the base's.

    Args:
        suspect: model folder, folder or file of weights (safetensors; pickles with
            ``weights_only``), LoRA, patch folder, card or hub id.
        base: the trusted model; a patch or a LoRA is applied to its weights.
        cutoffs: for rounding.

    Raises:
        ModelError: nothing readable there, a pickle that would run code, or projections of
            another architecture.
        PatchError: a damaged patch.
    """
    trusted = base_weights(base)
    rest = {name: t for name, t in _all_tensors(base).items() if name not in trusted}
    path = Path(suspect).expanduser()
    if path.is_dir() and (path / MANIFEST).is_file():
        patch = Patch.load(path)
        edited = {name: weight.detach().clone() for name, weight in trusted.items()}
        if patch.names <= set(edited):  # else it changes another component
            patch.rewrite(edited)
        return SuspectTensors(edited, tuple(sorted(patch.names - set(trusted))))
    if not path.exists() or str(suspect) in load_cards():
        return _of_model(load(suspect), trusted, rest, str(suspect), cutoffs)
    stored = [(file, key, read) for file in _files(path) for key, read in _stored(file).items()]
    if any("lora" in key.lower() for _, key, _ in stored):
        opened = open_suspect(path, base).model
        return _of_model(opened, trusted, rest, str(suspect), cutoffs)
    found: dict[str, Tensor] = {}
    homes: dict[str, Path] = {}
    others: list[str] = []
    for file, key, read in stored:
        name = _canonical(key) if key.endswith(_MARKS) else _bare(key)
        if key.endswith(_MARKS):
            if name in homes:
                raise ModelError(
                    f"expected {name} once below {str(path)!r}, got it in {file.name} and "
                    f"{homes[name].name}; name one of the files"
                )
            found[name], homes[name] = read(), file
        elif name in rest and _differs(rest[name], read(), cutoffs.rounding):
            others.append(name)
    if not found:
        raise ModelError(
            f"expected cross-attention weights (attn2.to_k, attn2.to_v) in {str(path)!r}, got "
            "none; name a model folder, a UNet's weights, a LoRA or a patch folder"
        )
    paired = check_pairing(trusted, found, name=str(suspect))
    return SuspectTensors(paired, tuple(sorted(others)))


def check_pairing(
    base: Mapping[str, Tensor], suspect: Mapping[str, Tensor], *, name: str
) -> dict[str, Tensor]:
    """The suspect's projections in the base's order, missing ones taken from the base.

    Raises:
        ModelError: no common name, or a shape that differs.
    """
    if not set(base) & set(suspect):
        raise ModelError(
            f"expected text projections of the base's architecture in {name!r}, got none; "
            "name the model that the suspect was made from as base"
        )
    for key in base:
        if key in suspect and suspect[key].shape != base[key].shape:
            raise ModelError(
                f"expected {key} of shape {tuple(base[key].shape)} in {name!r}, got "
                f"{tuple(suspect[key].shape)}; name the suspect's own base"
            )
    unknown = sorted(set(suspect) - set(base))
    if unknown:
        raise ModelError(
            f"expected the base's text projections in {name!r}, got {unknown[0]!r} beside them; "
            "name the suspect's own base"
        )
    return {key: suspect.get(key, weight) for key, weight in base.items()}


def _of_model(
    model: Model,
    trusted: Mapping[str, Tensor],
    rest: Mapping[str, Tensor],
    name: str,
    cutoffs: Cutoffs,
) -> SuspectTensors:
    paired = check_pairing(trusted, base_weights(model), name=name)
    changed = [
        key
        for key, tensor in _all_tensors(model).items()
        if key in rest and _differs(rest[key], tensor, cutoffs.rounding)
    ]
    return SuspectTensors(paired, tuple(sorted(changed)))


def _files(path: Path) -> list[Path]:
    """The weights below a place: safetensors wherever they lie, else pickles."""
    if path.is_file():
        return [path]
    return sorted(path.rglob("*.safetensors")) or sorted(
        file for suffix in PICKLES for file in path.rglob(f"*{suffix}")
    )


def _stored(file: Path) -> dict[str, Callable[[], Tensor]]:
    """A file's tensors by name, each read when it is asked for where the format allows it."""
    if file.suffix in PICKLES:
        return {key: tensor.detach for key, tensor in read_weights(file).items()}
    try:
        reader = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"expected whole tensors in {str(file)!r}, got an unreadable file ({error}); "
            "copy it anew"
        ) from error
    return {key: partial(reader.get_tensor, key) for key in reader.keys()}  # noqa: SIM118 - no mapping


def _all_tensors(model: Model) -> dict[str, Tensor]:
    both = {**model.text_encoder.state_dict(), **model.denoiser.state_dict()}
    return {_bare(name): tensor for name, tensor in both.items()}


def _bare(key: str) -> str:
    """A name without its component's prefix; an autoencoder's keep theirs and match nothing."""
    for prefix in ("unet.", "text_encoder.", "text_model."):
        key = key.removeprefix(prefix)
    return key


def _differs(base: Tensor, suspect: Tensor, slack: float) -> bool:
    if base.shape != suspect.shape:
        return True
    if not base.is_floating_point() or base.ndim == 0:
        return not torch.equal(base.cpu(), suspect.to(base.dtype).cpu())
    return not rounding(base.cpu(), suspect.cpu(), slack=slack).within


def _canonical(key: str) -> str:
    """A UNet's own name for a projection, without a container's prefix such as ``unet.``."""
    places = [key.index(root) for root in _ROOT if root in key]
    return key[min(places) :] if places else key
