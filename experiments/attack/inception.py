"""FID on Inception features of a run's benign images; see `redediting.metrics.inception`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.engine.real_models import InceptionSpec
from redediting.errors import ConfigError, MetricError
from redediting.evaluation.measure import Run
from redediting.metrics.fidelity import FID, comparable

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_LEAST = 20  # images, two a block of the jackknife


def inception_fid(run: Run, spec: InceptionSpec | None) -> list[dict[str, Any]]:
    """Returns the FID of every method's benign images, by extractor; the one of record first.

    A method with fewer images than the first of its extractor is left out: FID falls with N.

    Args:
        run: finished.
        spec: of extractors and reference; None where nobody asked for it.

    Returns:
        ``method``, ``fid``, ``fid_ci``, ``n``, ``extractor``, ``resize``, ``reference``,
        ``reference_n``.

    Raises:
        ConfigError: a package or its weights are missing, or the folder has too few images.
    """
    if spec is None:
        return []
    said, reference = "the clean model's images", _benign(run, run.titles[0])
    titles = run.titles[1:]  # it is at no distance from itself
    if spec.reference is not None:
        folder = Path(spec.reference).expanduser()
        said, reference, titles = f"{folder.name}: real images", _pictures(folder), run.titles
    rows = []
    for extractor in spec.extractors(str(run.panel.clip.device)):
        first: FID | None = None
        for title in titles:
            images = _benign(run, title)
            if min(len(images), len(reference)) < _LEAST:
                continue
            found = extractor.fid(images, reference, said)
            first = first or found
            try:
                comparable(first, found)
            except MetricError:
                continue
            rows.append({"method": title, **found.row()})
    return rows


def _benign(run: Run, title: str) -> list[Path]:
    return [
        run.store.images / image.image
        for key, measured in run.units.items()
        if key.method == title
        for image in measured.of("benign")
    ]


def _pictures(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if len(found) < _LEAST:
        raise ConfigError(
            f"expected at least {_LEAST} real images in {str(folder)!r}, got {len(found)}; name "
            "their folder in inception.reference"
        )
    return found
