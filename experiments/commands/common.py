"""What several commands ask for, and cheap checks of it: nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.engine.console import check_config, check_device, pick_device
from redediting.errors import (
    ModelError,
    PatchError,
    RebindingError,
)
from redediting.io import check_writable
from redediting.models.cards import find_sources
from redediting.registry import Registry

if TYPE_CHECKING:
    from redediting.concepts.plan import EditPlan
    from redediting.concepts.rebinding import Rebinding
    from redediting.models.model import Model
    from redediting.models.sampler import Sampler
    from redediting.patch.patch import Patch


@dataclass(frozen=True, kw_only=True)
class Command:
    """What most commands take."""

    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def load(self, model: str) -> Model:
        """Loads a model; `ModelError` where there is none."""
        from redediting.models.loading import load

        return load(model, device=pick_device(self.device))


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """How images are drawn."""

    steps: int | None = None
    """Denoising steps; the model card's when not given."""
    guidance: float | None = None
    """Guidance scale; the model card's when not given."""

    def sampler(self, model: str) -> Sampler:
        """That of a model's card with the flags that were given; an error where out of range."""
        from redediting.models.cards import default_sampler
        from redediting.models.sampler import Sampler

        wanted = {"steps": self.steps, "guidance": self.guidance}
        chosen = {key: value for key, value in wanted.items() if value is not None}
        return Sampler(**default_sampler(model).model_dump() | chosen)


@dataclass(frozen=True, kw_only=True)
class RebindingOptions:
    """Which rebindings: one by name, or a file of several."""

    trigger: str | None = None
    """Phrase to rebind, e.g. "beautiful cat"."""
    target: str | None = None
    """Phrase whose image it shall generate, e.g. zebra."""
    kind: Literal["neutral", "compound", "rare"] = "neutral"
    """How natural the trigger is; only a label in tables."""
    rebindings: Path | None = None
    """YAML file: {rebindings: [{trigger: …, target: …}, …]}."""

    def pairs(self, plan: EditPlan | None = None) -> list[Rebinding]:
        """The rebindings that the options name, or a plan's.

        `RebindingError` where none or two ways are used, `ConfigError` for an unreadable file.
        """
        from redediting.concepts.rebinding import Rebinding

        named = self.trigger is not None or self.target is not None
        if plan is not None:
            if named or self.rebindings is not None:
                raise RebindingError(
                    "expected --plan or --trigger, --target and --rebindings, got both; the plan "
                    "names its own rebindings"
                )
            return list(plan.rebindings)
        if self.rebindings is not None:
            if named:
                raise RebindingError(
                    "expected --rebindings or --trigger with --target, got both; drop one"
                )
            from experiments.engine.pairs import RebindingFile
            from redediting.config import load_config

            listed = load_config(self.rebindings, RebindingFile).rebindings
            return [one.rebinding() for one in listed]
        if self.trigger is None or self.target is None:
            raise RebindingError(
                f"expected --trigger and --target, got {self.trigger!r} and {self.target!r}; "
                "give both, or --rebindings FILE"
            )
        return [Rebinding(self.trigger, self.target, kind=self.kind)]


def check(
    *,
    model: str | Path | None = None,
    names: tuple[tuple[Registry[Any], str], ...] = (),
    device: str = "auto",
    edit: Path | None = None,
    suspect: str | None = None,
    config: Path | None = None,
    out: Path | None = None,
) -> None:
    """Refuses what a command cannot use, before anything that takes long is imported."""
    for registry, name in names:
        registry.check(name)
    if model is not None:
        find_sources(model)
    check_device(device)
    if config is not None:
        check_config(config)
    if edit is not None and not (edit / "patch.json").is_file():
        raise PatchError(
            f"expected a patch folder with patch.json, got {str(edit)!r}; name a folder that "
            "`redediting edit --out` wrote"
        )
    if suspect is not None and not Path(suspect).expanduser().exists():
        try:
            find_sources(suspect)
        except ModelError as error:
            raise ModelError(
                "expected a card, a hub id, a model folder, a patch folder, a .safetensors or a "
                f".pt file, got {suspect!r}, which does not exist; see `redediting models`"
            ) from error
    if out is not None:
        check_writable(out)


def save_patch(
    patch: Patch, model: Model, out: Path, *, merge: bool, plan: Path | None = None
) -> dict[str, Any]:
    """Writes a patch folder, and the patched model if asked; returns what JSON says of it."""
    import shutil

    from redediting.io import atomic_folder
    from redediting.patch.files import MANIFEST

    with patch.apply(model) as applied:
        figures = {"footprint": applied.footprint, "cast_error": applied.cast_error}
    with atomic_folder(out, marker=MANIFEST) as temporary:
        patch.save(temporary)
        if plan is not None:
            shutil.copyfile(plan.expanduser(), temporary / "plan.yaml")
        if merge:
            patch.merge(model, temporary / "pipeline")
    return {
        "out": out.as_posix(),
        "seconds": patch.provenance.seconds,
        **figures,
        "pipeline": (out / "pipeline").as_posix() if merge else None,
    }
