"""What a suspect holds, component by component, beside the model it is said to be made from.

Nothing is taken for the base's because it is absent: a component that the suspect's format cannot
carry (a LoRA has no tokenizer) is left out of the inventory, tensors that a carried component
lacks are simply not there, and what cannot be read is named with its reason. Comparing is the
caller's.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.io import one_line
from redediting.models.cards import INDEX
from redediting.models.model import Model
from redediting.patch.files import MANIFEST
from redediting.patch.patch import Patch
from redediting.suspects import (
    MARKS,
    ORIGINAL,
    Lazy,
    Source,
    bare_name,
    check_same_shapes,
    is_lora,
    open_suspect,
    place_of,
    stored_tensors,
    weight_files,
)

_NEVER_USED = ("safety_checker", "feature_extractor")  # models are loaded without them
_DOWN = (".lora_A.weight", ".lora.down.weight", ".lora_down.weight")  # one an adapter
_NO_MATTER = {
    "architectures", "dtype", "torch_dtype", "transformers_version", "name_or_path", "use_cache",
    "class_name", "diffusers_version", "return_dict", "output_attentions", "output_hidden_states",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One component of a suspect.

    Attributes:
        tensors: by the base's names, each read when it is asked for.
        unknown: names of tensors that the base's component does not have.
        settings: configuration, or a tokenizer's vocabulary and rules; None where the format has
            none, and the base's count.
        problem: why the component, or what is named there, could not be read.
    """

    tensors: Mapping[str, Lazy] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    settings: Any = None
    problem: str = ""


def components(model: Model) -> dict[str, Any]:
    """Networks, tokenizers and scheduler of a model by name."""
    parts = model.pipeline.components.items()
    return {name: part for name, part in parts if part is not None and name not in _NEVER_USED}


def settings_of(component: Any, config: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
    """What a component does besides its weights, as data, without version, path and type.

    Args:
        component: a network, a tokenizer or a scheduler.
        config: another configuration for the same class; None takes the component's own.
    """
    if hasattr(component, "get_vocab"):
        rules = json.loads(component.backend_tokenizer.to_str())
        special = {key: str(value) for key, value in component.special_tokens_map.items()}
        dropped = ("truncation", "padding", "version")
        return {
            "vocabulary": component.get_vocab(), "special": special,
            "length": component.model_max_length,
            "rules": {key: value for key, value in rules.items() if key not in dropped},
        }  # fmt: skip
    kind = type(component)
    own = component.config
    if hasattr(own, "to_dict"):
        found = (own if config is None else type(own).from_dict(dict(config))).to_dict()
    else:
        arguments = inspect.signature(kind.__init__).parameters.values()
        found = {a.name: a.default for a in arguments if a.default is not inspect.Parameter.empty}
        found |= dict(own if config is None else config)
    name = kind.__name__ if config is None else config.get("_class_name", kind.__name__)
    kept = {k: v for k, v in found.items() if k not in _NO_MATTER and not k.startswith("_")}
    return {"class": name, **json.loads(json.dumps(kept, default=str, sort_keys=True))}


def read_suspect(suspect: Source, base: Model) -> dict[str, Part]:
    """The components that a suspect carries, by the base's names; every other is not carried.

    Files may hold any part of a model; a patch or a LoRA is applied to the base's weights. Errors
    are those of `redediting.suspects.open_suspect`.
    """
    place = None if isinstance(suspect, Model | Patch) else place_of(suspect)
    if place is not None and (place / MANIFEST).is_file():
        suspect = Patch.load(place)
    if isinstance(suspect, Patch):
        return _loaded(open_suspect(suspect, base), base, only=(suspect.target,))
    if place is None:
        return _loaded(open_suspect(suspect, base), base)
    if (place / INDEX).is_file():
        return _folder(place, base)
    files = {file: stored_tensors(file) for file in weight_files(place)}
    keys = [key for held in files.values() for key in held]
    if is_lora(keys):
        return _adapted(place, keys, base)
    if any(key.startswith(ORIGINAL) for key in keys):
        return _original({k: read() for held in files.values() for k, read in held.items()}, base)
    return _sorted(files, base, str(place))


def _loaded(model: Model, base: Model, only: tuple[str, ...] | None = None) -> dict[str, Part]:
    theirs = components(model)
    found = {}
    for name, component in components(base).items():
        if only is not None and name not in only:
            continue
        if name not in theirs:
            found[name] = Part(problem="the suspect has none")
            continue
        tensors = _state(theirs[name])
        found[name] = _part(component, {k: t.detach for k, t in tensors.items()})
        settings = None if only else settings_of(theirs[name])
        found[name] = Part(found[name].tensors, found[name].unknown, settings)
    return found


def _folder(place: Path, base: Model) -> dict[str, Part]:
    """A pipeline folder, which carries every component."""
    try:
        index = json.loads((place / INDEX).read_text("utf-8"))
        if not isinstance(index, dict):
            raise ValueError(f"{type(index).__name__} instead of components by name")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"expected a readable {INDEX} in {str(place)!r}, got {one_line(error)}; "
            "fetch the folder again"
        ) from error
    found = {}
    for name, component in components(base).items():
        try:
            found[name] = _subfolder(place / name, component, index.get(name))
        except (ModelError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            found[name] = Part(problem=one_line(error))
        except Exception as error:  # tokenizers raises plain exceptions for broken files
            found[name] = Part(problem=one_line(error))
    known = {*components(base), *_NEVER_USED}
    extra = sorted(n for n, v in index.items() if isinstance(v, list) and v[-1] and n not in known)
    if extra:
        found["other"] = Part(unknown=tuple(extra), problem="the base has no such component")
    return found


def _subfolder(folder: Path, component: Any, entry: object) -> Part:  # noqa: ANN401
    if not folder.is_dir() or not isinstance(entry, list) or not entry[-1]:
        return Part(problem=f"no {folder.name} in the folder")
    if hasattr(component, "get_vocab"):
        tokenizer = type(component).from_pretrained(folder, local_files_only=True)
        return Part(settings=settings_of(tokenizer))
    file = "config.json" if isinstance(component, nn.Module) else "scheduler_config.json"
    config = json.loads((folder / file).read_text("utf-8"))
    if not isinstance(config, dict):
        return Part(problem=f"{file} holds {type(config).__name__}, not settings by name")
    settings = settings_of(component, config)
    settings["class"] = entry[-1]
    if not isinstance(component, nn.Module):
        return Part(settings=settings)
    tensors = {k: r for file in weight_files(folder) for k, r in stored_tensors(file).items()}
    part = _part(component, tensors)
    return Part(part.tensors, part.unknown, settings)


def _part(component: Any, tensors: Mapping[str, Lazy]) -> Part:  # noqa: ANN401
    """Tensors by the base's names, whatever prefix their saver gave them."""
    state = _state(component)
    names = {bare_name(key): key for key in state}
    known = {names[bare_name(k)]: read for k, read in tensors.items() if bare_name(k) in names}
    tied = {state[name].data_ptr(): read for name, read in known.items()}
    for name in state.keys() - known.keys():  # savers write a matrix with two names once
        if state[name].numel() and state[name].data_ptr() in tied:
            known[name] = tied[state[name].data_ptr()]
    rest = [k for k, read in tensors.items() if bare_name(k) not in names and not _idle(k, read)]
    return Part(known, tuple(sorted(rest)))


def _state(component: Any) -> dict[str, Tensor]:  # noqa: ANN401
    return component.state_dict() if isinstance(component, nn.Module) else {}


def _idle(key: str, read: Lazy) -> bool:
    """Whether a tensor is the counter that older text encoders stored beside their weights."""
    if not key.endswith("position_ids"):
        return False
    ids = read().flatten()
    return torch.equal(ids.long(), torch.arange(len(ids))) and torch.equal(ids.long().to(ids), ids)


def _sorted(files: Mapping[Path, Mapping[str, Lazy]], base: Model, said: str) -> dict[str, Part]:
    """Bare weights: each tensor goes to the component that it is named after or lies below."""
    parts = {n: c for n, c in components(base).items() if isinstance(c, nn.Module)}
    order = sorted(parts, key=lambda name: name != base.layout.denoiser)
    names = {name: {bare_name(key) for key in _state(parts[name])} for name in order}
    homes: dict[tuple[str, str], str] = {}
    held: dict[str, dict[str, Lazy]] = {}
    for file, tensors in files.items():
        for key, read in tensors.items():
            first, _, rest = key.partition(".")
            bare = bare_name(rest if first in parts else key)
            name = first if first in parts else file.parent.name
            if name not in parts:
                name = next((n for n in order if bare in names[n]), "")
            if not name and key.endswith(MARKS):
                name = base.layout.denoiser
            before = homes.setdefault((name, bare), file.name)
            if name and bare in held.get(name, ()):
                raise ModelError(
                    f"expected {bare} once below {said!r}, got it in {before} and {file.name}; "
                    "name one of the files"
                )
            held.setdefault(name, {})[bare] = read
    strange = held.pop("", {})
    if not held:
        raise ModelError(
            f"expected cross-attention weights (attn2.to_k, attn2.to_v) in {said!r}, or other "
            "tensors of the base's components, got none; name a model folder, a UNet's weights, a "
            "LoRA or a patch folder"
        )
    found = {name: _part(parts[name], tensors) for name, tensors in held.items()}
    if strange:
        said = "the base has no such tensor"
        found["other"] = Part(unknown=tuple(sorted(strange)), problem=said)
    return found


def _adapted(place: Path, keys: list[str], base: Model) -> dict[str, Part]:
    """A LoRA: the components that it changes, and the adapters of it that fitted nowhere."""
    model = open_suspect(place, base)
    own, theirs = components(base), components(model)
    applied = {name: _changed(own[name], theirs[name]) for name in own}
    found = _loaded(model, base, only=tuple(name for name, n in applied.items() if n))
    given = sum(key.endswith(_DOWN) for key in keys)
    if given > (n := sum(applied.values())):
        said = "adapters that changed no weight"
        found["other"] = Part(unknown=(f"{given - n} of {given}",), problem=said)
    return found


def _changed(one: Any, two: Any) -> int:  # noqa: ANN401
    """Number of tensors that differ."""
    if one is two:
        return 0
    ours, theirs = _state(one), _state(two)
    return sum(not torch.equal(ours[key], theirs[key]) for key in ours)


def _original(tensors: Mapping[str, Tensor], base: Model) -> dict[str, Part]:
    """A single checkpoint in the original layout, by diffusers' own key maps."""
    from diffusers.loaders import single_file_utils as maps

    parts = components(base)

    def text(name: str, prefix: str) -> Mapping[str, Tensor]:
        if prefix.endswith("transformer."):
            return maps.convert_ldm_clip_checkpoint(dict(tensors), remove_prefix=prefix)
        return maps.convert_open_clip_checkpoint(parts[name], dict(tensors), prefix=prefix)

    def network(name: str, _: str) -> Mapping[str, Tensor]:
        convert = {
            "unet": maps.convert_ldm_unet_checkpoint, "vae": maps.convert_ldm_vae_checkpoint
        }[name]  # fmt: skip
        return convert(dict(tensors), config=dict(parts[name].config))

    found = {}
    for name, prefix, convert in (
        ("unet", ORIGINAL, network),
        ("vae", "first_stage_model.", network),
        ("text_encoder", "cond_stage_model.transformer.", text),
        ("text_encoder", "cond_stage_model.model.", text),
        ("text_encoder", "conditioner.embedders.0.transformer.", text),
        ("text_encoder_2", "conditioner.embedders.1.model.", text),
    ):
        if name not in parts or not any(key.startswith(prefix) for key in tensors):
            continue
        try:
            converted = convert(name, prefix)
        except (
            KeyError,
            IndexError,
            RuntimeError,
            ValueError,
            AttributeError,
            TypeError,
        ) as error:
            problem = f"tensors of the original layout are missing or odd ({one_line(error)})"
            found[name] = Part(problem=problem)
            continue
        found[name] = _part(parts[name], {k: t.detach for k, t in converted.items()})
    return found


def check_projections(base: Model, part: Part) -> None:
    """Refuses text projections of another architecture.

    Raises:
        ModelError: a projection that the base does not have, or one of another shape.
    """
    strange = [name for name in part.unknown if name.endswith(MARKS)]
    if strange:
        raise ModelError(
            f"expected text projections of the base's architecture, got {strange[0]!r}; "
            "name the model that the suspect was made from as base"
        )
    trusted = base.weights()
    held = {name: read() for name, read in part.tensors.items() if name in trusted}
    if held:
        check_same_shapes(trusted, held, some=True)
