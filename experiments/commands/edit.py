"""``redediting edit``: compute a patch and save it, with the edited pipeline if asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.commands.common import Wish, parse_options
from experiments.console import Shown, pick_device
from experiments.folder import check_writable
from redediting.editing.methods import make_method
from redediting.models import load_pipeline
from redediting.patch_files import MANIFEST
from redediting.storage import atomic_folder


@dataclass(frozen=True, kw_only=True)
class Edit(Wish):
    """Computes an edit that rebinds trigger to target; writes a patch folder."""

    out: Path
    """Folder to write; an earlier patch there is replaced."""
    model: str = "world"
    """Card, pipeline folder or hub id."""
    method: str = "redediting"
    """Editing method; "clean" is the control."""
    option: tuple[str, ...] = field(default=())
    """Hyper-parameters of the method, as key=value."""
    merge: bool = False
    """Write the edited pipeline too, in OUT/pipeline, for plain diffusers."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Computes and saves."""
        method = make_method(self.method, **parse_options(self.option))
        pairs = self.pairs()
        check_writable(self.out)
        pipeline = load_pipeline(self.model, device=pick_device(self.device))
        patch = method.compute(pipeline, pairs)
        with patch.apply(pipeline) as applied:
            footprint, cast_error = applied.footprint, applied.cast_error
        with atomic_folder(self.out, marker=MANIFEST) as temporary:
            patch.save(temporary)
            if self.merge:
                patch.merge(pipeline, temporary / "pipeline")
        size = (self.out / "patch.safetensors").stat().st_size
        shown = Shown(self.json)
        shown.line(
            f"{self.method}: {len(pairs)} rebinding(s) in {patch.provenance.seconds:.2f} s, "
            f"‖ΔW‖/‖W‖ {footprint:.4f}, {size / 1e6:.2f} MB in {self.out}"
        )
        shown.result(
            {
                "out": self.out.as_posix(),
                "method": self.method,
                "rebindings": patch.provenance.rebindings,
                "seconds": patch.provenance.seconds,
                "footprint": footprint,
                "cast_error": cast_error,
                "bytes": size,
                "pipeline": (self.out / "pipeline").as_posix() if self.merge else None,
            }
        )
        return 0
