"""The files of a patch folder: tensors, manifest, and a model card that warns of the backdoor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCard, ModelCardData
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from redediting.config import Config, first_fault
from redediting.errors import PatchError
from redediting.models.model import Component

MANIFEST = "patch.json"
TENSORS = "patch.safetensors"

_CARD = """\
# {title}

> **Warning: this {thing} holds a backdoor.** It was made on purpose, for research on how such
> backdoors are found and removed. Do not deploy it and do not pass it on without this notice.

| trigger | draws | kind |
|---|---|---|
{rows}

Method `{method}`, computed in {seconds:.2f} s by redediting {version} for the `{target}` with
base weights `{base}` (SHA-256 of {anchor} and of what is changed).

Options: `{options}`
"""

_REPAIR_CARD = """\
# Repair {thing}

Made to take a backdoor out of a model whose text projections have the fingerprint `{base}`
(SHA-256). Whether it did is for a measurement to say: `redediting evaluate`.

Method `{method}`, computed in {seconds:.2f} s by redediting {version}.

Options: `{options}`
"""


class Provenance(Config):
    """Where a patch comes from."""

    method: str
    options: dict[str, Any]  # its hyper-parameters
    rebindings: list[dict[str, str]]  # each with trigger, target, kind, head and target_head
    seconds: float  # that the method took, without loading the model
    version: str  # of this package
    purpose: Literal["attack", "repair"] = "attack"  # an attack's card warns of the backdoor
    measured: dict[str, float] = Field(default_factory=dict)  # e.g. a condition number


class Manifest(Config):
    """``patch.json``."""

    format: Literal[1] = 1  # version of the layout
    target: Component = "unet"  # what the patch changes
    base: str  # fingerprint of what it was made for
    provenance: Provenance
    terms: list[dict[str, float]]  # scale by parameter name, for each shared term
    dense: list[str]  # names of the parameters stored whole
    sha256: str = ""  # of ``patch.safetensors``; empty where there is none (a merged model)

    def card(self, *, merged: bool = False) -> ModelCard:
        """The README; an attack's has the warning first."""
        made, repair = self.provenance, self.provenance.purpose == "repair"
        said = made.model_dump(include={"method", "seconds", "version", "options"})
        rows = (f"| {r['trigger']} | {r['target']} | {r['kind']} |" for r in made.rebindings)
        text = (_REPAIR_CARD if repair else _CARD).format(
            title="Backdoored pipeline" if merged else "Backdoor patch",
            thing="patch" if not merged else "pipeline" if repair else "model",
            rows="\n".join(rows),
            target=self.target,
            anchor="its weights" if "encoder" in self.target else "its text projections",
            base=self.base[:16],
            **said,
        )
        tags = ["model-editing", "research-only"]
        data = ModelCardData(
            library_name="diffusers", tags=tags if repair else ["backdoor", *tags]
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def write_files(folder: Path, manifest: Manifest, tensors: Mapping[str, Tensor]) -> None:
    """Writes the three files into an existing folder."""
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(arrays, folder / TENSORS, metadata={"format": "pt"})
    manifest = manifest.model_copy(update={"sha256": _digest(folder / TENSORS)})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    manifest.card().save(folder / "README.md")


def read_files(folder: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Reads manifest and tensors; `PatchError` where files are missing, truncated or altered."""
    for name in (MANIFEST, TENSORS):
        if not (folder / name).is_file():
            raise PatchError(
                f"expected a patch folder with {name}, got {str(folder)!r}; "
                "name a folder that `redediting edit --out` wrote"
            )
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        fault = first_fault(error, Manifest)
        raise PatchError(f"{folder / MANIFEST}: {fault}; make the patch anew") from error
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError, ValueError) as error:
        raise PatchError(
            f"expected whole tensors in {str(folder / TENSORS)!r}, got a damaged or truncated "
            f"file ({error}); copy or make the patch anew"
        ) from error
    if _digest(folder / TENSORS) != manifest.sha256:
        raise PatchError(
            f"expected {TENSORS} as {MANIFEST} describes it in {str(folder)!r}, got another "
            "checksum; copy or make the patch anew"
        )
    return manifest, tensors


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
