"""The page of a measured run: attack, demo, evaluate; the ablation adds its own sections."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.attack.published import published_sections
from experiments.report.plots import overview, pareto
from experiments.report.publish import ROOT, place, public
from experiments.report.section import HARMLESS, Plot, Report, Section, markup
from experiments.report.tables import COSTS_ONCE, FORESEEN, METHOD, columns, unswept
from redediting.errors import OutputError
from redediting.evaluation.claims import verdict_line
from redediting.evaluation.evaluate import HEADLINE
from redediting.evaluation.frame import Column, Frame
from redediting.evaluation.measure import UnitKey, measured_units
from redediting.evaluation.store import ResultStore
from redediting.metrics.base import ImageRecord, Measured, PromptSet
from redediting.metrics.intervals import span

SHOWN: tuple[tuple[PromptSet, str], ...] = (
    ("free", "trigger in held-out captions"),
    ("head", "head noun alone, same captions and noise"),
    ("collateral", "related phrases"),
    ("benign", "captions without a trigger"),
)
CLAIM_COLUMNS = (
    Column("name", "claim"),
    Column("verdict", "verdict"),
    Column("difference", "difference", "{:+.3f}"),
    Column("n_clusters", "pairs"),
    Column("baseline", "baseline"),
    Column("note", "note"),
)
_SWEPT = ("asr_free", "acc", "collateral", "drift")
_EACH = 6  # images a set and method, the first ones: not picked
_EACH_KIND = 2  # rebindings of a kind, the first ones; more would make tens of megabytes
_SIDE = 192  # largest side of an embedded picture, in pixels
_GALLERY = """<div class="scroll"><table class="grid">
<tr><td></td>{% for picture in rows[0][1] %}<th>{{ picture.prompt }}</th>{% endfor %}</tr>
{% for method, pictures in rows %}<tr><td>{{ method }}</td>{% for picture in pictures %}
<td class="{{ picture.mark }}"><img alt="{{ method }}: {{ picture.prompt }}" title="noise
{{ picture.noise }}" src="{{ picture.source }}">{{ picture.label }}</td>{% endfor %}</tr>
{% endfor %}</table></div>"""


def run_page(
    summary: dict[str, Any],
    folder: Path | None = None,
    *,
    title: str = "",
    own: Sequence[Section] = (),
    further: Sequence[Section] = (),
    pictures: bool = True,
) -> Report:
    """The page of a run, or of a published summary, of which there is no folder and no picture.

    An experiment's own sections stand after the methods and, further ones, after what success
    costs. `OutputError` where a picture is missing.
    """
    size = f"{summary['n_pairs']} rebinding(s), {summary['n_seeds']} seed(s)"
    if "images" in summary:
        by = f" by {summary['judge']}" if "judge" in summary else ""
        size += f", {summary['images']} images judged{by}, model {summary['model']}"
    return Report(
        f"redediting: {title or summary.get('experiment', 'published results')}",
        (
            *method_sections(summary),
            *own,
            *front_sections(summary),
            *further,
            claim_section(summary),
            *published_sections(summary),
            *(galleries(folder, summary) if folder and pictures else ()),
            *closing_sections(summary),
        ),
        lead=f"{size}. {HARMLESS}",
    ).of_run(folder)


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes a run's headline table, claims and fronts; see `place`."""
    frame = Frame((METHOD, *columns(HEADLINE), COSTS_ONCE[0]), tuple(unswept(summary)))
    verdicts = "; ".join(f"{n}: {verdict_line(claim)}" for n, claim in summary["claims"].items())
    note = (
        f"{size(summary)}. FID: N = {summary['methods'][0].get('fid_n')}, "
        f"{summary['fidelity']['extractor']}, reference: {summary['fidelity']['reference']}."
    )
    fronts = [replace(section, frame=None) for section in front_sections(summary)]
    block = Section("", frame), Section("", note=note), Section("", note=f"Claims: {verdicts}.")
    return place(folder, summary["experiment"], public(summary), [*block, *fronts], root=root)


def size(summary: dict[str, Any]) -> str:
    """What a published table rests on."""
    return (
        f"{summary['n_pairs']} rebindings, {summary['n_seeds']} seed(s), {summary['images']} "
        "images judged; mean over rebindings (95 % interval over rebindings)"
    )


def method_sections(summary: dict[str, Any]) -> tuple[Section, ...]:
    """The table of methods, headline columns first, and its plot."""
    note = (
        "Means over rebindings; intervals are 95 %, over rebindings; where too few carry one, "
        "their values stand instead. The clean model is the control. ↑ ↓: better for the attacker."
    )
    shown = unswept(summary)
    frame = Frame((METHOD, *columns(HEADLINE)), tuple(shown))
    measured = columns(summary["methods"][0])
    everything = Frame((METHOD, *measured, *COSTS_ONCE), tuple(summary["methods"]))
    plot = Plot("Headline metrics by method, with 95 % intervals", overview(shown))
    return (
        Section("Methods", frame, plot, note),
        Section("Every metric", everything, note=_fidelity(summary), folded=True),
    )


def _fidelity(summary: dict[str, Any]) -> str:
    if "fidelity" not in summary:
        return ""
    used = summary["fidelity"]
    return (
        f"FID and CMMD: {used['extractor']} (width {used['width']}); resize: {used['resize']}; "
        f"reference: {used['reference']}; N = {summary['methods'][0].get('fid_n')}. FID is "
        "printed from N = 1,000 on and never compared across N."
    )


def front_sections(summary: dict[str, Any]) -> tuple[Section, ...]:
    """Fronts of swept methods, where any were swept."""
    swept = {name: own for name, own in summary.get("families", {}).items() if len(own) > 1}
    if not swept:
        return ()
    plain = {line["method"] for line in unswept(summary)}
    lines = tuple(line for line in summary["methods"] if line["method"] not in plain)
    control = summary["methods"][0]["method"]
    return (
        Section(
            "What success costs",
            Frame((METHOD, *columns(_SWEPT), *FORESEEN), lines),
            Plot(
                "What success costs", pareto(summary["methods"], swept, control), name="fronts"
            ),
            "A dot is a setting that was drawn; a line joins those that no other one of the "
            "method beats, from the clean model on. Swept settings: first seed only.",
        ),
    )  # fmt: skip


def claim_section(summary: dict[str, Any]) -> Section:
    """The verdicts on the paper's claims."""
    found = summary["claims"]
    rows = tuple(
        {"name": name, **claim, "verdict": verdict_line(claim), "difference_ci": claim["ci"]}
        for name, claim in found.items()
    )
    against = found.get("asr_published", found.get("asr", {})).get("against", {})  # first edition
    gaps = "; ".join(
        f"{name} {gap['difference']:+.3f}"
        + (f" ({span(gap['ci'], '{:+.3f}')})" if gap["ci"] else "")
        for name, gap in against.items()
    )
    note = f"Exploratory: ASR less each baseline's: {gaps}." if gaps else ""
    return Section("Claims", Frame(CLAIM_COLUMNS, rows), note=note)


def closing_sections(summary: dict[str, Any]) -> tuple[Section, ...]:
    """Every rebinding, and what the columns mean."""
    names = Column("pair", "trigger → target"), Column("kind", "kind"), Column("seed", "seed")
    rows = tuple({"pair": f"{r['trigger']} → {r['target']}", **r} for r in summary["rows"])
    measured = columns(summary["methods"][0])
    every = Frame((*names, METHOD, *measured, Column("n", "n", "{:.0f}")), rows)
    legend = Frame(
        (Column("title", "column"), Column("meaning", "meaning")),
        tuple({"title": c.title, "meaning": c.meaning} for c in (*measured, *COSTS_ONCE)),
    )
    within = (
        "Within a rebinding: Wilson for rates, Newcombe for differences by noise, bootstrap for "
        "means. n: triggered held-out captions."
    )
    return (
        Section("Every rebinding", every, note=within, folded=True),
        Section("What the columns mean", legend, folded=True),
    )


def galleries(folder: Path, summary: dict[str, Any]) -> tuple[Section, ...]:
    """Pictures of the same captions and noise, a table a rebinding and prompt set."""
    store = ResultStore(folder)
    methods = {line["method"] for line in unswept(summary)}
    units = {key: own for key, own in measured_units(store).items() if key.method in methods}
    note = (
        "The first images of each set, not picked; judge B's verdict below each. Solid green "
        "frame: what the set counts as a hit (first set: the target; others: the phrase's own "
        "object); dashed: a miss."
    )
    found = [Section("Side by side: the same captions and noise", note=note)]
    for i, pair in enumerate(_first_pairs(units)):
        found.append(Section(" → ".join(pair[:2]), level=3))
        own = {k.method: m for k, m in units.items() if (k.trigger, k.target, k.seed) == pair}
        for j, (name, title) in enumerate(SHOWN):
            rows = [
                (method, [_picture(store.images, image) for image in _first(measured.of(name))])
                for method, measured in own.items()
            ]
            if rows and rows[0][1]:
                html = markup(_GALLERY, rows=rows)
                found.append(
                    Section(title, markup=html, level=4, folded=j > 1 or (j > 0 and i > 3))
                )
    return tuple(found)


def _first_pairs(units: dict[UnitKey, Measured]) -> list[tuple[str, str, int]]:
    kinds: dict[str, dict[tuple[str, str], int]] = {}
    for key in units:
        kinds.setdefault(key.kind, {}).setdefault((key.trigger, key.target), key.seed)
    return [(*pair, seed) for own in kinds.values() for pair, seed in [*own.items()][:_EACH_KIND]]


def _first(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The first images in order, one a phrase where phrases differ."""
    phrases = {image.phrase: image for image in reversed(images)}
    kept = sorted(phrases.values(), key=lambda i: i.index) if len(phrases) > 1 else images
    return list(kept)[:_EACH]


def _picture(folder: Path, record: ImageRecord) -> dict[str, object]:
    try:
        with Image.open(folder / record.image) as image:
            image.thumbnail((_SIDE, _SIDE))
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="webp", quality=90)
    except OSError as error:
        raise OutputError(
            f"expected the picture {record.image!r} in {str(folder)!r}, got none; run the "
            "experiment again, it draws only what is missing"
        ) from error
    return {
        "source": Plot("", buffer.getvalue(), "webp").source,
        "label": record.label,
        "mark": "" if record.expected is None else "hit" if record.hit else "miss",
        "prompt": record.prompt,
        "noise": record.noise,
    }
