"""The one reader of foreign weights: other people's edited models, as their tools save them.

| form | what is in it | written by |
|---|---|---|
| ``pipeline`` | a model folder, card or hub id | ``save_pretrained`` of a model |
| ``patch`` | a patch folder | this library |
| ``weights`` | all or some parameters, by name | ``torch.save(unet.state_dict())`` as EvilEdit, safetensors as UCE, ``unet/`` as diffusers |
| ``lora`` | low-rank adapters of denoiser and text encoders | diffusers, peft, kohya |

`open_suspect` gives a model that draws, and so asks for whole networks;
`redediting.inventory.read_suspect` gives whatever of them there is, to compare. Files are recognised by what they hold, never by what they are called. Pickles are read with
``weights_only=True`` alone: one that would run code is refused.
"""  # noqa: E501 - a table

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from redediting.errors import ModelError
from redediting.io import one_line
from redediting.models.cards import INDEX, find_sources, load_cards
from redediting.models.loading import load
from redediting.models.model import Component, Model, quiet
from redediting.patch.files import MANIFEST
from redediting.patch.patch import Patch

Source = str | Path | Model | Patch
Lazy = Callable[[], Tensor]

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
ORIGINAL = "model.diffusion_model."
_PREFIXES = ("unet.", "transformer.", "module.", "text_encoder.", "text_model.")
MARKS = (".attn2.to_k.weight", ".attn2.to_v.weight")
_ROOT = re.compile(r"(down_blocks|mid_block|up_blocks)\..*")
_ADAPTED: tuple[Component, ...] = ("unet", "transformer", "text_encoder", "text_encoder_2")


def open_suspect(suspect: Source, base: Model) -> Model:
    """Opens somebody else's weights over the clean model that they are said to be made from.

    The model returned is on the clean one's device and in its dtype, and shares with it what is
    not changed. `ModelError` for no such place, an unknown form, a damaged or dangerous file, or
    weights of another architecture; `PatchError` for a patch that is damaged or made for another
    model.
    """
    if isinstance(suspect, Model):
        check_same_shapes(base.denoiser.state_dict(), suspect.denoiser.state_dict())
        return suspect
    place = None if isinstance(suspect, Patch) else place_of(suspect)
    if isinstance(suspect, Patch) or (place and (place / MANIFEST).is_file()):
        patch = suspect if isinstance(suspect, Patch) else Patch.load(suspect)
        model = base.with_copies((patch.target,))
        patch.apply(model)
        return model
    if place is None or (place / INDEX).is_file():
        name = suspect if place is None else place
        return open_suspect(load(name, device=str(base.device), dtype=base.dtype), base)
    files = [stored_tensors(file) for file in weight_files(place)]
    tensors = {name: read() for file in files for name, read in file.items()}
    opened = _with_lora if is_lora(tensors) else _with_weights
    return opened(base, tensors, place)


def bare_name(key: str) -> str:
    """A tensor's name without what savers put before it, e.g. ``unet.`` or ``text_model.``."""
    if key.endswith(MARKS) and (found := _ROOT.search(key)):
        return found.group()
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def place_of(suspect: str | Path) -> Path | None:
    """Where a suspect lies on the disk; None for a card or a hub id."""
    place = Path(suspect).expanduser()
    if str(suspect) in load_cards():
        return None
    if place.exists():
        return place
    if place.suffix in (".safetensors", *_PICKLES):
        raise ModelError(
            f"expected a suspect's folder or weights file, got {str(suspect)!r}, which does not "
            "exist; name a model folder, a patch folder, a .safetensors or a .pt file"
        )
    find_sources(suspect)  # a hub id, or an error says what else it may be
    return None


def _with_weights(base: Model, tensors: Mapping[str, Tensor], place: Path) -> Model:
    found = {bare_name(name): tensor for name, tensor in tensors.items()}
    # layers that read text alone, as UCE saves them
    edit = all(".attn2." in name or "embedder" in name for name in found)
    check_same_shapes(base.denoiser.state_dict(), found, some=edit)
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
            fused = [name for name in present if name in pipeline._lora_loadable_modules]
            pipeline.fuse_lora(components=fused)
            pipeline.unload_lora_weights()
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"expected a LoRA for {kind} in {str(place)!r}, got one that does not "
            f"fit ({one_line(error)}); {remedy}"
        ) from error
    pairs = [(base.component(n).state_dict(), model.component(n).state_dict()) for n in present]
    if all(torch.equal(one[name], two[name]) for one, two in pairs for name in one):
        raise ModelError(
            f"expected a LoRA that changes {kind}, got {str(place)!r}, none of whose layers it "
            f"has; {remedy}"
        )
    return model


def is_lora(names: Iterable[str]) -> bool:
    """Whether a file's tensors are low-rank adapters, by their names."""
    return any("lora" in name.lower() for name in names)


def weight_files(place: Path) -> list[Path]:
    """A file itself, or the weights below a folder: safetensors wherever they lie, else pickles.

    `ModelError` where there are none, or a shard that an index names is missing.
    """
    if place.is_file():
        return [place]
    shards = [
        index.parent / name
        for index in sorted(place.rglob("*.safetensors.index.json"))
        for name in _shards(index)
    ]
    indexed = {file.parent for file in shards}
    found = sorted(place.rglob("*.safetensors"))
    files = shards + [file for file in found if file.parent not in indexed]
    files = files or sorted(x for suffix in _PICKLES for x in place.rglob(f"*{suffix}"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise ModelError(
            f"expected {INDEX}, {MANIFEST} or weights in {str(place)!r}, got "
            + (f"no {missing[0]}" if missing else "none")
            + "; the download may have stopped half-way: fetch it again"
        )
    return files


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        if any(Path(name).name != name for name in names):
            raise ValueError("names of files elsewhere")
        return sorted(names)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"expected a readable index of shards in {str(index)!r}, got {one_line(error)}; "
            "fetch it again"
        ) from error


def stored_tensors(file: Path) -> dict[str, Lazy]:
    """A file's tensors by name, each read when it is asked for where the format allows it.

    `ModelError` for another kind of file, a damaged one, one that holds other things than named
    tensors, or a pickle that would run code.
    """
    if file.suffix != ".safetensors":
        return {key: tensor.detach for key, tensor in _unpickled(file).items()}
    try:
        reader = safe_open(file, framework="pt")
        return {key: partial(reader.get_tensor, key) for key in reader.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file, error) from error


def check_same_shapes(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, some: bool = False
) -> None:
    """Refuses weights of another architecture than the clean model's; ``some`` may be missing."""
    remedy = "name the model that it was made from with --model or --base"
    if any(name.startswith(ORIGINAL) for name in theirs):
        raise ModelError(
            f"expected diffusers' parameter names, got an original checkpoint ({ORIGINAL}…); "
            "convert it with diffusers' convert_original_stable_diffusion_to_diffusers.py"
        )
    unknown = [name for name in theirs if name not in ours]
    missing = [] if some else [name for name in ours if name not in theirs]
    if unknown or missing or not theirs:
        first = repr(missing[0]) if missing else "like any of them"
        what = f"the unknown {unknown[0]!r}" if unknown else f"none named {first}"
        raise ModelError(
            f"expected parameters of the clean model's architecture, got {what} "
            f"({len(unknown)} unknown, {len(missing)} missing); {remedy}"
        )
    for name, tensor in theirs.items():
        if tensor.shape != ours[name].shape:
            raise ModelError(
                f"expected {name} of shape {tuple(ours[name].shape)}, got {tuple(tensor.shape)}: "
                f"the suspect has another architecture; {remedy}"
            )


def _unpickled(file: Path) -> dict[str, Tensor]:
    if file.suffix not in _PICKLES:
        raise ModelError(
            f"expected weights as .safetensors or {', '.join(_PICKLES)}, got {file.name!r}; "
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
