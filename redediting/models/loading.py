"""The one loader: a card, a pipeline folder, a single checkpoint file or a hub id, in this order.

``./world`` is a folder where ``world`` is a card. The hub is asked only for what its local cache
lacks. Pipelines are loaded without their safety checker: it would blacken images by a rule of its
own and so change every rate that is measured here. Only safetensors are read, never pickles.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import HfApi
from safetensors import SafetensorError

from redediting.errors import ModelError
from redediting.io import one_line
from redediting.models.cards import Expected, ModelCard, find_sources, load_cards
from redediting.models.layouts import LAYOUTS
from redediting.models.model import Model, quiet

_TIMEOUT = 10.0  # seconds to reach the hub
_UNREADABLE = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, SafetensorError,
)  # fmt: skip


def load(
    model: str | Path | Model | DiffusionPipeline,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    offload: bool = False,
    layout: str | None = None,
    config: str | Path | None = None,
) -> Model:
    """Loads a text-to-image model, in evaluation mode and without safety checker.

    Args:
        model: ``world``, another card's name, a folder in the diffusers layout, a single
            ``.safetensors`` checkpoint in the original layout, or a hub id. A pipeline that is
            loaded already is wrapped as it is, a `Model` returned.
        device: torch device, e.g. ``"cpu"`` or ``"cuda"``.
        dtype: floating type of all weights; None takes the card's on an accelerator and float32
            otherwise, whatever the files hold.
        offload: keep networks in main memory and bring each to the device while it computes.
        layout: architecture by name or by the path of a file that defines one; found by the
            pipeline's class when not given.
        config: of a single checkpoint: folder or hub id with the configuration files of its
            architecture; None takes those that diffusers knows for it.

    Raises:
        ModelError: an unknown name or folder, files that are missing or cannot be read, files of
            another model than the card's, or no such device.
        WorldError: the embedded weights are missing.

    Example:
        >>> import redediting as rd
        >>> rd.load("world")
        Model(world: StableDiffusionPipeline on cpu)
    """
    if isinstance(model, Model):
        return model
    made = None if layout is None else LAYOUTS.get(layout)()
    if isinstance(model, DiffusionPipeline):
        return Model(model, layout=made)
    sources = find_sources(model)
    _check_device(device)
    card = load_cards().get(str(model))
    if dtype is None:
        own = card is not None and torch.device(device).type != "cpu"
        dtype = getattr(torch, card.dtype) if card is not None and own else torch.float32
    failures = []
    for place, revision in sources:
        try:
            with quiet():
                if place.endswith(".safetensors"):
                    pipeline = _load_checkpoint(place, dtype, config)
                else:
                    pipeline = _load(place, revision, dtype, card.variant if card else None)
        except _UNREADABLE as error:
            failures.append((place, error))
            continue
        found = Model(pipeline, name=str(model), card=card, layout=made)
        if card is not None and card.expected is not None:
            check_expected(str(model), found, card.expected)
        if not offload:
            pipeline.to(device)
        elif torch.device(device).type == "cpu":
            raise ModelError(
                "expected an accelerator to offload from, got 'cpu'; drop the offload"
            )
        else:
            pipeline.enable_model_cpu_offload(device=device)
        return found
    said = "; ".join(f"{place}: {one_line(error)}" for place, error in failures)
    remedy = _remedy(card) if card and card.sources else "repair or download the files"
    raise ModelError(
        f"expected a readable diffusers pipeline for {str(model)!r}, got {said}; {remedy}, or use "
        f"one of the cards: {', '.join(load_cards())}"
    ) from failures[-1][1]


def check_expected(name: str, model: Model, expected: Expected) -> None:
    """Refuses a model whose text projections are not those of its card."""
    tokens, pooled = len(model.projections), len(model.pooled_projections)
    found = Expected(tokens=tokens, width=model.width, pooled=pooled)
    if found != expected:
        raise ModelError(
            f"expected {expected.tokens} matrices of text width {expected.width} (and "
            f"{expected.pooled} pooled) for {name!r}, got {found.tokens} of {found.width} (and "
            f"{found.pooled}): the files are another model's; name its card, or fetch them again"
        )


def _remedy(card: ModelCard) -> str:
    source = card.sources[0]
    revision = f" --revision {source.revision}" if source.revision else ""
    variant = f" (its {card.variant} files)" if card.variant else ""
    size = f", about {card.gigabytes:g} GB" if card.gigabytes else ""
    return f"fetch it where there is a network: hf download {source.id}{revision}{variant}{size}"


def _load(
    place: str, revision: str | None, dtype: torch.dtype, variant: str | None
) -> DiffusionPipeline:
    if Path(place).is_dir():
        return _load_folder(place, dtype)
    download = partial(
        DiffusionPipeline.download, place, revision=revision, variant=variant,
        use_safetensors=True, safety_checker=None,
    )  # fmt: skip
    try:
        return _load_folder(download(local_files_only=True), dtype, variant)
    except _UNREADABLE:  # not in the cache, or not whole
        _check_hub(place, revision)
        return _load_folder(download(local_files_only=False), dtype, variant)


def _check_hub(hub_id: str, revision: str | None) -> None:
    """Asks once, so that a wrong name fails at once where a download would try six times."""
    try:
        HfApi().model_info(hub_id, revision=revision, timeout=_TIMEOUT)
    except Exception as error:  # the client's HTTP library, and its errors, change with releases
        raise OSError(
            f"no such folder, not in the cache, not on the hub ({one_line(error)})"
        ) from error


def _load_folder(folder: str, dtype: torch.dtype, variant: str | None = None) -> DiffusionPipeline:
    options: dict[str, Any] = {} if variant is None else {"variant": variant}
    if "safety_checker" in DiffusionPipeline.load_config(folder):
        options |= {"safety_checker": None, "requires_safety_checker": False}
    return DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, **options)


def _load_checkpoint(
    file: str, dtype: torch.dtype, config: str | Path | None
) -> DiffusionPipeline:
    """A checkpoint in the original layout, by diffusers' own key maps."""
    import diffusers
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from safetensors import safe_open

    with safe_open(file, framework="pt") as reader:
        names = {name: reader.get_slice(name) for name in reader.keys()}  # noqa: SIM118
    shapes = {name: torch.empty(part.get_shape(), device="meta") for name, part in names.items()}
    kind = infer_diffusers_model_type(shapes)
    classes = {
        "xl": diffusers.StableDiffusionXLPipeline, "sd3": diffusers.StableDiffusion3Pipeline,
        "flux": diffusers.FluxPipeline, "": diffusers.StableDiffusionPipeline,
    }  # fmt: skip
    pipeline = next(found for key, found in classes.items() if kind.startswith(key))
    if not any(name.startswith("model.diffusion_model.") for name in names):
        raise ModelError(
            f"expected a checkpoint in the original layout (model.diffusion_model.…) in {file!r}, "
            "got other tensors; name the model's folder, or audit the file as a suspect"
        )
    options: dict[str, Any] = {} if config is None else {"config": str(config)}
    if pipeline is diffusers.StableDiffusionPipeline:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        return pipeline.from_single_file(file, torch_dtype=dtype, **options)
    except Exception as error:  # its hub client's errors change with releases
        raise ModelError(
            f"expected the configuration files of a {kind} model for {file!r}, got "
            f"{one_line(error)}; name a folder that has them: load(..., config=FOLDER)"
        ) from error


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"expected a device that torch can use, got {device!r} ({one_line(error)}); use cpu"
        ) from error
