"""Other people's edited models: weights as their tools save them, over a clean model.

| form | what is in it | written by |
|---|---|---|
| ``pipeline`` | a model folder | ``save_pretrained`` of a model |
| ``patch`` | a patch folder | this library |
| ``weights`` | all or some parameters of the denoiser, by name | ``torch.save(unet.state_dict())`` as EvilEdit, safetensors as UCE, ``unet/`` as diffusers |
| ``lora`` | low-rank adapters of denoiser and text encoders | diffusers, peft, kohya |

A suspect becomes a model of its own, which shares with the clean one what it does not change.
Pickles are read with ``weights_only=True`` alone: one that would run code is refused.
"""  # noqa: E501 - a table

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.io import one_line
from redediting.models.loading import INDEX, load
from redediting.models.model import Component, Model
from redediting.models.quiet import quiet
from redediting.patch.files import MANIFEST
from redediting.patch.patch import Patch

Form = Literal["pipeline", "patch", "weights", "lora"]

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_PREFIXES = (
    "unet.",
    "transformer.",
    "module.",
)  # of savers that name the component or the wrapper
_ORIGINAL = "model.diffusion_model."
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


def open_suspect(path: str | Path, base: Model) -> Suspect:
    """Opens somebody else's weights over the clean model that they are said to be made from.

    Args:
        path: model folder, patch folder, folder or file of denoiser weights, LoRA file.
        base: the clean pipeline; it is not changed.

    Returns:
        The suspect, on the clean pipeline's device and in its dtype.

    Raises:
        ModelError: no such place, an unknown form, a damaged or dangerous file, or weights of
            another architecture.
        PatchError: a patch that is damaged or made for another model.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        if (place / INDEX).is_file():
            suspect = load(place, device=str(base.device), dtype=base.dtype)
            return Suspect(_same_layout(base, suspect), "pipeline")
        if (place / MANIFEST).is_file():
            patch = Patch.load(place)
            model = base.with_copies((patch.target,))
            patch.apply(model)
            return Suspect(model, "patch")
        tensors = _read_folder(place)
    elif place.is_file():
        tensors = read_weights(place)
    else:
        raise ModelError(
            f"expected a suspect's folder or weights file, got {str(path)!r}, which does not "
            "exist; name a model folder, a patch folder, a .safetensors or a .pt file"
        )
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    stored = kinds.pop() if len(kinds) == 1 else None
    if any("lora" in name.lower() for name in tensors):
        return Suspect(_with_lora(base, tensors, place), "lora", stored)
    return Suspect(_with_weights(base, tensors, place), "weights", stored)


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
    check_same_shapes(
        {name: tuple(weight.shape) for name, weight in ours.items()},
        {name: tuple(weight.shape) for name, weight in theirs.items()},
        partial=False,
    )
    clean = {name: _rounded(weight.detach(), stored) for name, weight in ours.items()}
    return clean, {name: theirs[name].detach() for name in ours}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads named tensors from a safetensors file or, with ``weights_only``, from a pickle.

    Raises:
        ModelError: another kind of file, a damaged one, one that holds other things than named
            tensors, or a pickle that would run code.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"expected whole tensors in {str(path)!r}, got a damaged or truncated file "
                f"({one_line(error)}); download it again"
            ) from error
    if path.suffix not in PICKLES:
        raise ModelError(
            f"expected weights as .safetensors or {', '.join(PICKLES)}, got {path.name!r}; "
            "name a file of one of these"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's notes on old protocols: it loads, or raises
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"expected tensors only in {str(path)!r}, got a pickle that asks to run code, which "
            "is refused; ask for a safetensors file"
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise ModelError(
            f"expected whole tensors in {str(path)!r}, got a damaged or truncated file "
            f"({one_line(error)}); download it again"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ModelError(
            f"expected tensors by name in {str(path)!r}, got {type(found).__name__}; save "
            "unet.state_dict()"
        )
    return dict(found)


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
    remedy = "name the model that it was made from with --model"
    if any(name.startswith(_ORIGINAL) for name in theirs):
        raise ModelError(
            f"expected diffusers' parameter names, got an original checkpoint ({_ORIGINAL}…); "
            "convert it with diffusers' convert_original_stable_diffusion_to_diffusers.py"
        )
    unknown = [name for name in theirs if name not in ours]
    missing = [] if partial else [name for name in ours if name not in theirs]
    if unknown or missing or not theirs:
        what = f"the unknown {unknown[0]!r}" if unknown else f"none named {_first(missing)}"
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


def _module(model: Model, component: Component | None) -> nn.Module:
    return model.denoiser if component is None else model.component(component)


def _same_layout(base: Model, suspect: Model) -> Model:
    paired_weights(base, suspect)
    return suspect


def _with_weights(base: Model, tensors: Mapping[str, Tensor], place: Path) -> Model:
    found = {_bare(name): tensor for name, tensor in tensors.items()}
    denoiser = base.denoiser
    shapes = {name: tuple(value.shape) for name, value in denoiser.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in found.items()}
    check_same_shapes(shapes, theirs, partial=_is_edit(found))
    broken = [name for name, tensor in found.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(
            f"expected finite numbers in {str(place)!r}, got others in {broken[0]}; "
            "download it again, or leave it"
        )
    model = base.with_copies((base.layout.denoiser,))
    model.denoiser.load_state_dict(found, strict=False)
    return model


def _is_edit(tensors: Mapping[str, Tensor]) -> bool:
    """Whether only layers that read text are given, as UCE saves them."""
    return all(".attn2." in name or "embedder" in name for name in tensors)


def _with_lora(base: Model, tensors: Mapping[str, Tensor], place: Path) -> Model:
    if not hasattr(base.pipeline, "load_lora_weights"):
        raise ModelError(
            f"expected a model that takes a LoRA, got {type(base.pipeline).__name__}; "
            "name the model that it was made from with --model"
        )
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
            f"expected a LoRA for {type(base.pipeline).__name__} in {str(place)!r}, got one that does not "
            f"fit ({one_line(error)}); name the model that it was made from with --model"
        ) from error
    ours, theirs = paired_weights(base, model)
    texts = [name for name in present if name.startswith("text")]
    same = all(torch.equal(ours[name], theirs[name]) for name in ours)
    for text in texts:
        one, two = paired_weights(base, model, text)
        same = same and all(torch.equal(one[name], two[name]) for name in one)
    if same:
        raise ModelError(
            f"expected a LoRA that changes {type(base.pipeline).__name__}, got {str(place)!r}, none of "
            "whose layers it has; name the model that it was made from with --model"
        )
    return model


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder with the weights of one network, in one file or in shards."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        shards = set(json.loads(indices[0].read_text("utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(shards)]
    else:
        files = sorted(folder.glob("*.safetensors")) or sorted(
            path for suffix in PICKLES for path in folder.glob(f"*{suffix}")
        )
    missing = [path.name for path in files if not path.is_file()]
    if missing or not files:
        raise ModelError(
            f"expected {INDEX}, {MANIFEST} or weights in {str(folder)!r}, got "
            + (f"no {missing[0]}" if missing else "none")
            + "; the download may have stopped half-way: fetch it again"
        )
    return {name: tensor for path in files for name, tensor in read_weights(path).items()}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _rounded(weight: Tensor, stored: torch.dtype | None) -> Tensor:
    if stored is None or torch.finfo(stored).bits >= torch.finfo(weight.dtype).bits:
        return weight
    return weight.to(stored).to(weight.dtype)


def _first(names: list[str]) -> str:
    return repr(names[0]) if names else "like any of them"
