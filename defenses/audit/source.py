"""Text projections by name, from a pipeline, a folder or a file: tensors only, no metadata.

Files are recognised by what they hold, never by what they are called.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor

from defenses.audit.cutoffs import CUTOFFS, Cutoffs
from defenses.audit.rounding import rounding
from redediting.errors import ModelError
from redediting.models import load_cards, load_pipeline
from redediting.patch import Patch
from redediting.patch_files import MANIFEST
from redediting.projections import pipeline_projections, projection_weights

_MARKS = (".attn2.to_k.weight", ".attn2.to_v.weight")
_ROOT = ("down_blocks", "mid_block", "up_blocks")


def base_weights(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """The text projections of a loaded pipeline; they share its memory."""
    return projection_weights(pipeline_projections(pipeline))


def suspect_weights(suspect: str | Path, base: DiffusionPipeline) -> dict[str, Tensor]:
    """The text projections of a suspect, named as the base names them.

    Args:
        suspect: pipeline folder, folder or file of safetensors, patch folder, card or hub id.
        base: the trusted model; a patch is applied to its weights, and projections that a partial
            file leaves out are the base's own.

    Raises:
        ModelError: nothing readable there, or projections of another architecture.
        PatchError: a damaged patch.
    """
    trusted = base_weights(base)
    path = Path(suspect).expanduser()
    if path.is_dir() and (path / MANIFEST).is_file():
        patch = Patch.load(path)
        edited = {name: weight.detach().clone() for name, weight in trusted.items()}
        if patch.names <= set(edited):  # else it changes another component
            patch.rewrite(edited)
        return edited
    if path.exists() and str(suspect) not in load_cards():
        found = dict(_read(path))
    else:
        found = base_weights(load_pipeline(suspect))
    return check_pairing(trusted, found, name=str(suspect))


def other_changes(
    suspect: str | Path, base: DiffusionPipeline, *, cutoffs: Cutoffs = CUTOFFS
) -> tuple[str, ...]:
    """Tensors of UNet and text encoder beside the projections that are not the base's.

    What a suspect leaves out counts as the base's; a rounded copy is no change.

    Args:
        suspect: as for `suspect_weights`.
        base: the trusted model.
        cutoffs: for rounding.
    """
    path = Path(suspect).expanduser()
    if path.is_dir() and (path / MANIFEST).is_file():
        return tuple(sorted(Patch.load(path).names - set(base_weights(base))))
    trusted = _all_tensors(base)
    for name in base_weights(base):
        del trusted[name]
    found: Iterable[tuple[str, Tensor]]
    if path.exists() and str(suspect) not in load_cards():
        found = _others(path, trusted)
    else:
        model = load_pipeline(suspect)
        found = _all_tensors(model).items()
    return tuple(
        sorted(
            name
            for name, tensor in found
            if name in trusted and _differs(trusted[name], tensor, cutoffs.rounding)
        )
    )


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


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    seen: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - the reader is no mapping
                    if not key.endswith(_MARKS):
                        continue
                    name = _canonical(key)
                    if name in seen:
                        raise ModelError(
                            f"expected {name} once below {str(path)!r}, got it in {file.name} and "
                            f"{seen[name].name}; name one of the files"
                        )
                    seen[name] = file
                    yield name, tensors.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"expected whole tensors in {str(file)!r}, got an unreadable file ({error}); "
                "copy it anew"
            ) from error
    if not seen:
        raise ModelError(
            f"expected cross-attention weights (attn2.to_k, attn2.to_v) in {str(path)!r}, got "
            "none; name a pipeline folder, a UNet's safetensors or a patch folder"
        )


def _others(path: Path, known: Container[str]) -> Iterator[tuple[str, Tensor]]:
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - the reader is no mapping
                if _bare(key) in known:
                    yield _bare(key), tensors.get_tensor(key)


def _all_tensors(model: DiffusionPipeline) -> dict[str, Tensor]:
    both = {**model.text_encoder.state_dict(), **model.unet.state_dict()}
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
