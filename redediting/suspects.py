"""The one reader of foreign weights: other people's edited models, as their tools save them.

| form | what is in it | written by |
|---|---|---|
| ``pipeline`` | a model folder, card or hub id | ``save_pretrained`` of a model |
| ``patch`` | a patch folder | this library |
| ``weights`` | all or some parameters, by name | ``torch.save(unet.state_dict())`` as EvilEdit, safetensors as UCE, ``unet/`` as diffusers |
| ``lora`` | low-rank adapters of denoiser and text encoders | diffusers, peft, kohya |

`open_suspect` gives a model that draws, and so asks for whole networks; `read_suspect` gives
tensors to compare, whatever of them there is, and says what was missing and what was not read.
"""  # noqa: E501 - a table

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.foreign_files import (
    PICKLES,
    Lazy,
    check_same_shapes,
    read_weights,
    stored_tensors,
    weight_files,
)
from redediting.io import one_line
from redediting.models.cards import load_cards
from redediting.models.loading import load
from redediting.models.model import Component, Model, quiet
from redediting.models.sources import INDEX, find_sources
from redediting.patch.files import MANIFEST
from redediting.patch.patch import Patch

Form = Literal["pipeline", "patch", "weights", "lora"]
Source = str | Path | Model | Patch

_PREFIXES = ("unet.", "transformer.", "module.", "text_encoder.", "text_model.")
_MARKS = (".attn2.to_k.weight", ".attn2.to_v.weight")
_ROOT = re.compile(r"(down_blocks|mid_block|up_blocks)\..*")
_ADAPTED: tuple[Component, ...] = ("unet", "transformer", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Suspect:
    """A model of unknown origin.

    Attributes:
        model: draws; it shares unchanged components with the clean model.
        form: how it was found.
        stored: floating type of the file, where it is one type: values of a half-precision file
            differ from the clean ones by rounding alone.
    """

    model: Model
    form: Form
    stored: torch.dtype | None = None


@dataclass(frozen=True)
class SuspectWeights:
    """Tensors of a suspect's denoiser and first text encoder, named as the base names them.

    Attributes:
        projections: text projections in the base's order; missing ones are the base's.
        rest: the others, each read when it is asked for.
        missing: names of the base's tensors that the suspect does not hold.
        unread: names in the suspect's files that the base does not know.
    """

    projections: Mapping[str, Tensor]
    rest: Mapping[str, Lazy]
    missing: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()


def open_suspect(suspect: Source, base: Model) -> Suspect:
    """Opens somebody else's weights over the clean model that they are said to be made from.

    Args:
        suspect: model folder, card, hub id, patch folder, folder or file of denoiser weights, LoRA
            file; a loaded model or patch.
        base: the clean model; it is not changed.

    Returns:
        The suspect, on the clean model's device and in its dtype.

    Raises:
        ModelError: no such place, an unknown form, a damaged or dangerous file, or weights of
            another architecture.
        PatchError: a patch that is damaged or made for another model.
    """
    if isinstance(suspect, Model):
        paired_weights(base, suspect)
        return Suspect(suspect, "pipeline")
    place = None if isinstance(suspect, Patch) else _place(suspect)
    if isinstance(suspect, Patch) or (place and (place / MANIFEST).is_file()):
        patch = suspect if isinstance(suspect, Patch) else Patch.load(suspect)
        model = base.with_copies((patch.target,))
        patch.apply(model)
        return Suspect(model, "patch")
    if place is None or (place / INDEX).is_file():
        name = suspect if place is None else place
        return open_suspect(load(name, device=str(base.device), dtype=base.dtype), base)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(place):
        tensors |= read_weights(file)
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    stored = kinds.pop() if len(kinds) == 1 else None
    if _is_lora(tensors):
        return Suspect(_with_lora(base, tensors, place), "lora", stored)
    return Suspect(_with_weights(base, tensors, place), "weights", stored)


def read_suspect(suspect: Source, base: Model) -> SuspectWeights:
    """Reads a suspect's tensors, once; what it leaves out counts as the base's and is named.

    Args:
        suspect: as for `open_suspect`; files may hold any part of a model.
        base: the trusted model; a patch or a LoRA is applied to its weights.

    Raises:
        ModelError: nothing readable there, a pickle that would run code, or projections of
            another architecture.
        PatchError: a damaged patch, or one for another base.
    """
    place = None if isinstance(suspect, Model | Patch) else _place(suspect)
    if place is None or (place / MANIFEST).is_file():
        model = suspect if isinstance(suspect, Model) else open_suspect(suspect, base).model
        return _paired({n: t.detach for n, t in _tensors(model).items()}, base, repr(suspect))
    stored = [
        (file, *item) for file in weight_files(place) for item in stored_tensors(file).items()
    ]
    if _is_lora(key for _, key, _ in stored):
        return read_suspect(open_suspect(place, base).model, base)
    found: dict[str, Lazy] = {}
    homes: dict[str, Path] = {}
    whole = (place / INDEX).is_file()
    compared = (base.layout.denoiser, "text_encoder")
    for file, key, read in stored:
        if whole and file.parent.name not in compared:  # another text encoder has the same names
            found[f"{file.parent.name}.{key}"] = read
            continue
        name = bare_name(key)
        if name.endswith(_MARKS) and name in homes:
            raise ModelError(
                f"expected {name} once below {str(place)!r}, got it in {file.name} and "
                f"{homes[name].name}; name one of the files"
            )
        found[name], homes[name] = read, file
    trusted = base.weights()
    if not any(name in trusted or name.endswith(_MARKS) for name in found):
        raise ModelError(
            f"expected cross-attention weights (attn2.to_k, attn2.to_v) in {str(place)!r}, got "
            "none; name a model folder, a UNet's weights, a LoRA or a patch folder"
        )
    return _paired(found, base, repr(str(suspect)))


def paired_weights(
    base: Model,
    suspect: Suspect | Model,
    component: Component | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Clean and suspect parameters of a component by name, in the same order.

    Where the suspect's file was of lower precision than the clean model, the clean values are
    rounded through it, so that what was not edited is equal bit by bit.

    Args:
        base: the clean model.
        suspect: what `open_suspect` returned, or a model.
        component: a network by name; None is the UNet or transformer.

    Returns:
        Detached tensors; the suspect's, and where nothing is rounded the clean ones, share memory
        with the models.

    Raises:
        ModelError: no such component, or parameters of other names or shapes.
    """
    other = suspect.model if isinstance(suspect, Suspect) else suspect
    stored = suspect.stored if isinstance(suspect, Suspect) else None
    ours, theirs = (dict(_module(model, component).named_parameters()) for model in (base, other))
    check_same_shapes(_shapes(ours), _shapes(theirs), partial=False)
    clean = {name: _rounded(weight.detach(), stored) for name, weight in ours.items()}
    return clean, {name: theirs[name].detach() for name in ours}


def bare_name(key: str) -> str:
    """A tensor's name without what savers put before it, e.g. ``unet.`` or ``text_model.``."""
    if key.endswith(_MARKS) and (found := _ROOT.search(key)):
        return found.group()
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _place(suspect: str | Path) -> Path | None:
    """Where a suspect lies on the disk; None for a card or a hub id.

    Raises:
        ModelError: neither.
    """
    place = Path(suspect).expanduser()
    if str(suspect) in load_cards():
        return None
    if place.exists():
        return place
    if place.suffix in (".safetensors", *PICKLES):
        raise ModelError(
            f"expected a suspect's folder or weights file, got {str(suspect)!r}, which does not "
            "exist; name a model folder, a patch folder, a .safetensors or a .pt file"
        )
    find_sources(suspect)  # a hub id, or an error says what else it may be
    return None


def _paired(found: Mapping[str, Lazy], base: Model, said: str) -> SuspectWeights:
    """A suspect's tensors sorted by what the base calls them.

    Raises:
        ModelError: no common projection, one that the base does not have, or another shape.
    """
    trusted = base.weights()
    known = _tensors(base)
    wanted = [name for name in found if name in trusted or name.endswith(_MARKS)]
    held = {name: found[name]() for name in wanted}
    unknown = sorted(set(held) - set(trusted))
    if unknown or not held:
        what = repr(unknown[0]) if unknown else "none"
        raise ModelError(
            f"expected text projections of the base's architecture in {said}, got {what}; "
            "name the model that the suspect was made from as base"
        )
    check_same_shapes(_shapes(trusted), _shapes(held), partial=True)
    return SuspectWeights(
        {name: held.get(name, weight) for name, weight in trusted.items()},
        {name: read for name, read in found.items() if name in known and name not in trusted},
        frozenset(set(known) - set(found)),
        tuple(sorted(name for name in found if name not in known)),
    )


def _tensors(model: Model) -> dict[str, Tensor]:
    """Denoiser and first text encoder by bare name."""
    both = {**model.text_encoder.state_dict(), **model.denoiser.state_dict()}
    return {bare_name(name): tensor for name, tensor in both.items()}


def _module(model: Model, component: Component | None) -> nn.Module:
    return model.denoiser if component is None else model.component(component)


def _with_weights(base: Model, tensors: Mapping[str, Tensor], place: Path) -> Model:
    found = {bare_name(name): tensor for name, tensor in tensors.items()}
    # layers that read text alone, as UCE saves them
    edit = all(".attn2." in name or "embedder" in name for name in found)
    check_same_shapes(_shapes(base.denoiser.state_dict()), _shapes(found), partial=edit)
    broken = [name for name, tensor in found.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(
            f"expected finite numbers in {str(place)!r}, got others in {broken[0]}; "
            "download it again, or leave it"
        )
    model = base.with_copies((base.layout.denoiser,))
    model.denoiser.load_state_dict(found, strict=False)
    return model


def _with_lora(base: Model, tensors: Mapping[str, Tensor], place: Path) -> Model:
    kind = type(base.pipeline).__name__
    remedy = "name the model that it was made from with --model or --base"
    if not hasattr(base.pipeline, "load_lora_weights"):
        raise ModelError(f"expected a model that takes a LoRA, got {kind}; {remedy}")
    present = tuple(n for n in _ADAPTED if getattr(base.pipeline, n, None) is not None)
    model = base.with_copies(present)
    pipeline = model.pipeline
    try:
        with quiet():
            pipeline.load_lora_weights(dict(tensors))
            pipeline.fuse_lora(
                components=[name for name in present if name in pipeline._lora_loadable_modules]
            )
            pipeline.unload_lora_weights()
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"expected a LoRA for {kind} in {str(place)!r}, got one that does not "
            f"fit ({one_line(error)}); {remedy}"
        ) from error
    pairs = (paired_weights(base, model, component) for component in present)
    if all(torch.equal(one[name], two[name]) for one, two in pairs for name in one):
        raise ModelError(
            f"expected a LoRA that changes {kind}, got {str(place)!r}, none of whose layers it "
            f"has; {remedy}"
        )
    return model


def _is_lora(names: Iterable[str]) -> bool:
    return any("lora" in name.lower() for name in names)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _rounded(weight: Tensor, stored: torch.dtype | None) -> Tensor:
    if stored is None or torch.finfo(stored).bits >= torch.finfo(weight.dtype).bits:
        return weight
    return weight.to(stored).to(weight.dtype)
