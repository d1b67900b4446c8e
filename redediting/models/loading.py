"""Models by name: cards, the one loader of pipelines, and fingerprints of weights.

A model is named by a card (``redediting/data/models.yaml``), by a local folder in the diffusers
layout or by a hub id, looked up in this order; ``./world`` is a folder where ``world`` is a card.
The hub is asked only for what its local cache lacks.

Pipelines are loaded without their safety checker: it would blacken images by a rule of its own and
so change every rate that is measured here. Only safetensors are read, never pickles.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import torch
import yaml
from diffusers import ConfigMixin, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import HfApi
from pydantic import BaseModel, ConfigDict, model_validator
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from redediting.errors import ModelError, WorldError
from redediting.fingerprints import fingerprint
from redediting.generation import Sampler
from redediting.models.projections import find_projections, get_denoiser, pooled_projections

__all__ = [
    "INDEX",
    "Expected",
    "ModelCard",
    "Source",
    "check_expected",
    "default_sampler",
    "fingerprint",
    "fingerprint_pipeline",
    "load_cards",
    "load_pipeline",
    "quiet",
]

INDEX = "model_index.json"
_TIMEOUT = 10.0  # seconds to reach the hub
_UNREADABLE = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, SafetensorError,
)  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Source(BaseModel):
    """A place on the model hub.

    Attributes:
        id: ``owner/name``.
        revision: commit it is pinned to; None takes the one in the cache, else the newest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    revision: str | None = None


class Expected(BaseModel):
    """The text projections that a model has; other files under its name are refused.

    Attributes:
        tokens: matrices that read token states.
        width: of a token state.
        pooled: matrices that read the pooled text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int
    width: int
    pooled: int = 0


class ModelCard(BaseModel):
    """What is known of a model by name.

    Attributes:
        title: name for tables.
        sources: hub ids in the order they are tried; empty for the embedded world.
        embedded: whether the weights come with this package.
        sampler: default sampler.
        licence: of the weights.
        dtype: floating type on an accelerator; a CPU computes in float32.
        variant: of the files on the hub, e.g. ``fp16``; None takes the plain ones.
        resolution: height and width in pixels that it was trained for.
        expected: its text projections.
        gigabytes: size of the download, about; counted from numbers of parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    sources: tuple[Source, ...] = ()
    embedded: bool = False
    sampler: Sampler = Sampler()
    licence: str
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    variant: str | None = None
    resolution: int | None = None
    expected: Expected | None = None
    gigabytes: float | None = None

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.embedded == bool(self.sources):
            raise ValueError(f"expected either sources or embedded: true in card {self.title!r}")
        return self


@cache
def load_cards() -> dict[str, ModelCard]:
    """Returns the model cards by name, in the order of the file."""
    text = resources.files("redediting.data").joinpath("models.yaml").read_text("utf-8")
    return {name: ModelCard.model_validate(card) for name, card in yaml.safe_load(text).items()}


def default_sampler(model: str | Path) -> Sampler:
    """Returns the sampler of a model's card, or the general one for a folder or hub id."""
    card = load_cards().get(str(model))
    return card.sampler if card else Sampler()


def load_pipeline(
    model: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    offload: bool = False,
) -> DiffusionPipeline:
    """Loads a text-to-image pipeline.

    Args:
        model: ``world``, another card's name, a folder in the diffusers layout, or a hub id.
        device: torch device, e.g. ``"cpu"`` or ``"cuda"``.
        dtype: floating type of all weights; None takes the card's on an accelerator and float32
            otherwise, whatever the files hold.
        offload: keep networks in main memory and bring each to the device while it computes.

    Returns:
        The pipeline on its device, in evaluation mode, without safety checker.

    Raises:
        ModelError: an unknown name or folder, files that are missing or cannot be read, files of
            another model than the card's, or no such device.
        WorldError: the embedded weights are missing.
    """
    _check_device(device)
    card = load_cards().get(str(model))
    sources = _sources(model) if card is None else _card_sources(card)
    if dtype is None:
        own = card is not None and torch.device(device).type != "cpu"
        dtype = getattr(torch, card.dtype) if card is not None and own else torch.float32
    failures = []
    for place, revision in sources:
        try:
            with quiet():
                pipeline = _load(place, revision, dtype, card.variant if card else None)
        except _UNREADABLE as error:
            failures.append((place, error))
        else:
            if card is not None and card.expected is not None:
                check_expected(str(model), pipeline, card.expected)
            return _placed(pipeline, device, offload=offload)
    raise ModelError(
        f"expected a readable diffusers pipeline for {str(model)!r}, got "
        + "; ".join(f"{place}: {_line(error)}" for place, error in failures)
        + "; "
        + (_remedy(card) if card and card.sources else "repair or download the files")
        + ", or use one of the cards: "
        + ", ".join(load_cards())
    ) from failures[-1][1]


def check_expected(name: str, pipeline: DiffusionPipeline, expected: Expected) -> None:
    """Makes sure that a pipeline is what a card says.

    Raises:
        ModelError: its text projections are others.
    """
    denoiser = get_denoiser(pipeline)
    tokens = find_projections(denoiser)
    found = Expected(
        tokens=len(tokens),
        width=tokens[0].module.in_features,
        pooled=len(pooled_projections(denoiser)),
    )
    if found != expected:
        raise ModelError(
            f"expected {expected.tokens} matrices of text width {expected.width} (and "
            f"{expected.pooled} pooled) for {name!r}, got {found.tokens} of {found.width} (and "
            f"{found.pooled}): the files are another model's; name its card, or fetch them again"
        )


def fingerprint_pipeline(pipeline: DiffusionPipeline) -> str:
    """Returns one fingerprint of everything in a pipeline that an image depends on.

    That is the weights of every network, the settings of networks and scheduler, the tokenizer's
    vocabulary. An applied patch changes it, its revert restores it, saving and loading keep it;
    `redediting.generation.ImageStore` keys its images with it.
    """
    parts: dict[str, Any] = {}
    for name, component in pipeline.components.items():
        part: dict[str, Any] = {"class": type(component).__name__}
        parts[name] = part
        if isinstance(component, nn.Module):
            part["weights"] = fingerprint(component.state_dict())
        if isinstance(component, ConfigMixin):
            config = component.config.items()
            part["config"] = {key: value for key, value in config if not key.startswith("_")}
        if isinstance(component, PreTrainedTokenizerBase):
            part["vocabulary"] = component.get_vocab()
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _card_sources(card: ModelCard) -> list[tuple[str, str | None]]:
    if not card.embedded:
        return [(source.id, source.revision) for source in card.sources]
    folder = Path(importlib.import_module("redediting.world").PIPELINE_DIR)
    if not (folder / INDEX).is_file():
        raise WorldError(
            f"expected the embedded world's weights in {folder}, got no {INDEX}; "
            "install the package again or train them with python -m experiments.training"
        )
    return [(str(folder), None)]


def _sources(model: str | Path) -> list[tuple[str, str | None]]:
    folder = Path(model).expanduser()
    cards = ", ".join(load_cards())
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise ModelError(
                f"expected a pipeline folder with {INDEX}, got {str(model)!r}; "
                f"name such a folder or one of the cards: {cards}"
            )
        _check_whole(folder)
        return [(str(folder), None)]
    if isinstance(model, str) and _HUB_ID.fullmatch(model):
        return [(model, None)]
    raise ModelError(
        f"expected a card, a pipeline folder or a hub id, got {str(model)!r}; "
        f"the cards are: {cards}"
    )


def _check_whole(folder: Path) -> None:
    """Refuses a folder that a download left half-way.

    Raises:
        ModelError: a component's folder or one of its shards is missing, or a part of a download.
    """
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        wanted = [name for name, kind in index.items() if _is_saved(name, kind)]
        missing = [f"{name}/" for name in wanted if not (folder / name).is_dir()]
        for shards in folder.glob("*/*.index.json"):
            names = set(json.loads(shards.read_text("utf-8"))["weight_map"].values())
            gone = (name for name in sorted(names) if not (shards.parent / name).is_file())
            missing += [f"{shards.parent.name}/{name}" for name in gone]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"expected a readable {INDEX} in {str(folder)!r}, got {_line(error)}; "
            "fetch the folder again"
        ) from error
    missing += [path.name for path in folder.rglob("*.incomplete")]
    if missing:
        raise ModelError(
            f"expected a whole pipeline in {str(folder)!r}, got it without {missing[0]} "
            f"({len(missing)} missing); the download stopped half-way: fetch the rest"
        )


def _is_saved(name: str, kind: object) -> bool:
    if name.startswith("_") or name == "safety_checker" or not isinstance(kind, list):
        return False
    return len(kind) == 2 and kind[1] is not None


def _remedy(card: ModelCard) -> str:
    source = card.sources[0]
    revision = f" --revision {source.revision}" if source.revision else ""
    variant = f" (its {card.variant} files)" if card.variant else ""
    size = f", about {card.gigabytes:g} GB" if card.gigabytes else ""
    return f"fetch it where there is a network: hf download {source.id}{revision}{variant}{size}"


def _placed(pipeline: DiffusionPipeline, device: str, *, offload: bool) -> DiffusionPipeline:
    if not offload:
        return pipeline.to(device)
    if torch.device(device).type == "cpu":
        raise ModelError("expected an accelerator to offload from, got 'cpu'; drop the offload")
    pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def _load(
    place: str, revision: str | None, dtype: torch.dtype, variant: str | None
) -> DiffusionPipeline:
    if Path(place).is_dir():
        return _load_folder(place, dtype)
    try:
        folder = _download(place, revision, variant, local_files_only=True)
        return _load_folder(folder, dtype, variant)
    except _UNREADABLE:  # not in the cache, or not whole
        _check_hub(place, revision)
        folder = _download(place, revision, variant, local_files_only=False)
        return _load_folder(folder, dtype, variant)


def _check_hub(hub_id: str, revision: str | None) -> None:
    """Asks once, so that a wrong name fails at once where a download would try six times."""
    try:
        HfApi().model_info(hub_id, revision=revision, timeout=_TIMEOUT)
    except Exception as error:  # the client's HTTP library, and its errors, change with releases
        raise OSError(
            f"no such folder, not in the cache, not on the hub ({_line(error)})"
        ) from error


def _download(
    hub_id: str, revision: str | None, variant: str | None, *, local_files_only: bool
) -> str:
    return DiffusionPipeline.download(
        hub_id,
        revision=revision,
        variant=variant,
        local_files_only=local_files_only,
        use_safetensors=True,
        safety_checker=None,
    )


def _load_folder(folder: str, dtype: torch.dtype, variant: str | None = None) -> DiffusionPipeline:
    config: dict[str, Any] = DiffusionPipeline.load_config(folder)
    options: dict[str, Any] = {} if variant is None else {"variant": variant}
    if "safety_checker" in config:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    return DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, **options)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the loaders' own bars and notes: an error is one line, and a sweep loads often."""
    loggers = (diffusers_logging, transformers_logging)
    before = [(logger.is_progress_bar_enabled(), logger.get_verbosity()) for logger in loggers]
    try:
        for logger in loggers:
            logger.disable_progress_bar()
            logger.set_verbosity_error()
        yield
    finally:
        for logger, (bar, verbosity) in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bar:
                logger.enable_progress_bar()


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"expected a device that torch can use, got {device!r} ({_line(error)}); use cpu"
        ) from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
