"""The audit experiment's page and what the documentation quotes: the same tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.plots import png
from experiments.report.publish import ROOT, place
from experiments.report.section import HARMLESS, Plot, Report, Section
from redediting.evaluation.audit import grouped_by
from redediting.evaluation.frame import PERCENT, Column, Frame, show
from redediting.evaluation.store import Row
from redediting.metrics.intervals import listed, span

Drawing = Callable[[Axes, Sequence[Row]], None]
_SEPARATION = {  # key of the summary: name in the table
    "edited": ("edited models", "{:d}"),
    "controls": ("changed models without an edit", "{:d}"),
    "benign": ("benign closed-form edits", "{:d}"),
    "detected": ("edited models found", PERCENT),
    "false_alarms": ("changes without an edit called edited", PERCENT),
    "auroc": ("AUROC of r²", "{:.4f}"),
    "auroc_whitened": ("AUROC of r², whitened", "{:.4f}"),
    "lowest_unmodified": ("lowest r² of an unmodified edit (one or two matrices)", "{:.6f}"),
    "lowest_edited": ("lowest r² of any edit", "{:.4f}"),
    "highest_control": ("highest r² of a change without an edit", "{:.4f}"),
    "highest_control_whitened": ("the same, whitened", "{:.4f}"),
    "highest_control_two": ("the same, two matrices", "{:.4f}"),
    "benign_listed": ("benign closed-form edits called edited", PERCENT),
    "benign_named": ("of these, concept named in the first finding", PERCENT),
    "blind_auroc": ("without a base: AUROC", "{:.3f}"),
    "blind_top1": ("without a base: trigger first", PERCENT),
    "blind_top5": ("without a base: trigger in five", PERCENT),
}
_DRAWN = (
    Column("asr", "ASR", PERCENT, "up"),
    Column("acc", "ACC", PERCENT, "up"),
    Column("drift", "drift", "{:.3f}", "down"),
)
_FAMILIES = (
    Column("family", "method or control"), Column("label", "label"), Column("n", "n", "{:d}"),
    Column("r2_low", "lowest r²", "{:.4f}"), Column("r2_high", "highest r²", "{:.4f}"),
    Column("whitened_high", "whitened", "{:.4f}"), Column("two_high", "two matrices", "{:.4f}"),
    Column("clean", "clean", "{:d}"), Column("edited", "edited", "{:d}"),
    Column("changed", "changed", "{:d}"), Column("seconds", "seconds", "{:.2f}"),
)  # fmt: skip
_RECOVERY = (
    Column("group", "edits"), _DRAWN[0], Column("top1", "trigger first", PERCENT),
    Column("top5", "in five", PERCENT), Column("noun", "its noun", PERCENT),
    Column("target", "target", PERCENT), Column("n", "n", "{:d}"),
    Column("same_noun", "same noun", PERCENT, meaning="other modifiers that score as high"),
    Column("same_modifier", "same modifier", PERCENT, meaning="other nouns, likewise"),
)  # fmt: skip
_ADAPTIVE = (
    Column("kind", "hiding"), Column("size", "size", "{:g}"), Column("r2", "r²", "{:.4f}"),
    Column("auroc", "AUROC", "{:.3f}"), Column("r2_whitened", "r² whitened", "{:.4f}"),
    Column("auroc_whitened", "AUROC whitened", "{:.3f}"), Column("detected", "found", PERCENT),
    *_DRAWN, Column("top1", "trigger first", PERCENT),
)  # fmt: skip
_WAYS = (
    "jitter, noise: relative to the edit; quiet: noise orthogonal to the span of text embeddings; "
    "spread: groups of layers, each on its own contexts."
)
_REPAIRS = (
    Column("method", "attack"), Column("repair", "repair"), *_DRAWN,
    Column("kept", "kept", "{:.3f}", meaning="share of the fine-tune's change that is left"),
    Column("kept_read", "kept, as read", "{:.3f}", meaning="the same, as captions read it"),
    Column("beside", "beside", "{:.3g}", meaning="what else is left, relative to it"),
    Column("beside_read", "beside, as read", "{:.3g}", meaning="the same, as captions read it"),
    Column("honest_gap", "gap", "{:.3g}", meaning="distance from the fine-tune without an edit"),
    Column("condition", "condition", "{:.3g}", meaning="of I + XD"),
    Column("seconds", "seconds", "{:.2f}"),
)  # fmt: skip


def audit_page(summary: dict[str, Any], folder: Path | None = None) -> Report:
    """The page of a run, or of a published summary, of which there is no folder."""
    return Report(
        f"Weights-only audit: {summary['model']}",
        sections(summary),
        lead=f"{HARMLESS} Intervals are 95 %, over pairs, trainings or bases. Cut-offs were "
        "fixed on the development models.",
    ).of_run(folder)


def publish(folder: Path, summary: dict[str, Any], *, root: Path = ROOT) -> Path:
    """Publishes a run; see `experiments.report.publish.place`."""
    return place(folder, summary["experiment"], summary, sections(summary), root=root)


def sections(summary: dict[str, Any]) -> tuple[Section, ...]:
    """The tables and the plot; what was not measured is left out."""
    hidden = summary["adaptive"]
    prices = [price(hidden, *which) for which in _STATISTICS] if hidden else []
    found = (
        ("Edited or not", _separation(summary), ""),
        ("By method and kind of control", _frame(_FAMILIES, summary["families"]), ""),
        ("Triggers and targets named", _frame(_RECOVERY, map(_flat, summary["recovery"])),
         "Compared as normalised phrases; noun, target: of the first phrase named."),
        ("After ordinary training, and after projection on the clean span",
         _lasting(summary["persistence"]), "Attack success at the last step of each treatment."),
        ("An attacker who hides the shared factor", _frame(_ADAPTIVE, map(_flat, hidden)),
         " ".join([_WAYS, *prices])),
        ("Repairs of an edit with a legitimate fine-tune on top",
         _frame(_REPAIRS, summary["repairs"]), ""),
    )  # fmt: skip
    made = [Section(title, frame, note=note) for title, frame, note in found if frame.rows]
    if panels := [(draw, lines) for draw, key in _PANELS if (lines := summary[key])]:
        made.append(Section("Persistence, removal, hiding", plot=_plot(panels)))
    return tuple(made)


def price(lines: Sequence[Row], key: str, name: str, *, least: float = 0.9) -> str:
    """What each way of hiding costs until a statistic's AUROC falls under a level."""

    def cost(line: Row) -> str:
        return f"ASR {show(line['asr'], '{:.0%}')}, drift {show(line['drift'], '{:.3f}')}"

    kinds = {kind: own for (kind,), own in grouped_by(lines, "kind")}
    plain = kinds.pop("none", None)
    clauses = []
    for kind, own in kinds.items():
        first = next((x for x in own if x[key] is not None and x[key] < least), None)
        where = f"from {first['size']:g} on, at {cost(first)}" if first else ""
        clauses.append(f"{kind}: {where or 'not within these sizes'}")
    start = f" (unhidden: {cost(plain[0])})" if plain else ""
    return f"AUROC of {name} under {least:g}: {'; '.join(clauses)}{start}."


_SUCCESS = ("asr", "asr_ci", "asr_values")
_STATISTICS = (("auroc", "r²"), ("auroc_whitened", "r² after whitening"))


def _frame(columns: Iterable[Column], lines: Iterable[Row]) -> Frame:
    return Frame(tuple(columns), tuple(lines))


def _flat(line: Row) -> Row:
    """Rates as ``KEY``, ``KEY_ci`` and ``n``."""
    found = dict(line)
    for key, rate in line.items():
        if isinstance(rate, dict):
            found |= {key: rate["value"], f"{key}_ci": rate["ci"], "n": rate["n"]}
            found |= {f"{key}_values": rate.get("values", ())}
    return found


def _separation(summary: dict[str, Any]) -> Frame:
    """A row a figure, development and test side by side; what neither has is left out."""
    rows = []
    ours, theirs = summary["test"], summary["development"]
    ours = ours | {f"blind_{key}": value for key, value in summary["base_free"].items()}
    for key, (name, form) in _SEPARATION.items():
        cells = {"test": _said(ours[key], form), "development": _said(theirs.get(key), form)}
        if ours[key] is not None and set(cells.values()) != {"–"}:
            rows.append({"name": name} | cells)
    heads = {"name": "from weights alone", "test": "test", "development": "development"}
    return _frame((Column(key, head) for key, head in heads.items()), rows)


def _said(value: Any, form: str) -> str:  # noqa: ANN401 - a figure or a rate
    """A figure, or a rate with its interval and n."""
    if not isinstance(value, dict):
        return show(value, form)
    if value["value"] is None:
        return "–"
    size = f"n = {value['n']}"
    if "n_clusters" in value:  # not in the first edition
        size += f" in {value['n_clusters']} cluster(s)"
    values = listed(value.get("values", ()), "clusters")
    beside = span(value["ci"], form) if value["ci"] else values
    return f"{form.format(value['value'])} ({', '.join(filter(None, (beside, size)))})"


def _lasting(lines: Sequence[Row]) -> Frame:
    """Success after each treatment, at its last step: a row an attack."""
    rows: dict[str, Row] = {}
    columns = {}
    for line in lines:  # steps rise
        trial, step = line["trial"], line["step"]
        title = f"{trial}, {step} steps" if step else trial
        columns[trial] = Column(trial, title, PERCENT)
        row = rows.setdefault(line["method"], {"method": line["method"]})
        row |= {trial + key[3:]: line[key] for key in line if key in _SUCCESS}
    return _frame((Column("method", "ASR after"), *columns.values()), rows.values())


def _plot(panels: Sequence[tuple[Drawing, Sequence[Row]]]) -> Plot:
    """Persistence, removability and what hiding costs."""
    figure = Figure(figsize=(4 * len(panels), 4.6), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (drawing, lines) in zip(every, panels, strict=True):
        drawing(axes, lines)
        axes.grid(linewidth=0.4)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return Plot("Persistence, removal and hiding", png(figure), name="forensics")


def _persistence(axes: Axes, lines: Sequence[Row]) -> None:
    start = {line["method"]: line["asr"] for line in lines if line["trial"] == "edited"}
    for i, method in enumerate(start):
        trained = [x for x in lines if x["method"] == method and x["step"] > 0]
        for mark, trial in zip("osv^", dict.fromkeys(x["trial"] for x in trained), strict=False):
            own = [x for x in trained if x["trial"] == trial]
            steps, values = [0, *(x["step"] for x in own)], [x["asr"] for x in own]
            label = f"{method}, {trial}"
            axes.plot(steps, [start[method], *values], f"-{mark}", color=f"C{i}", label=label)
    axes.set(title="Success after training", xlabel="steps", ylabel="ASR")


def _removability(axes: Axes, lines: Sequence[Row]) -> None:
    for i, method in enumerate(dict.fromkeys(line["method"] for line in lines)):
        own = {x["trial"]: x for x in lines if x["method"] == method and x["step"] == 0}
        for mark, form in (("o", "hard"), ("s", "soft")) if "edited" in own else ():
            if (trial := f"projection, {form}") in own:
                removed = own["edited"]["asr"] - own[trial]["asr"]
                place = own["edited"]["drift"], removed
                axes.plot(*place, mark, color=f"C{i}", label=f"{method}, {form}")
    axes.set(title="Isolation against removability", xlabel="benign drift", ylabel="ASR removed")


def _cost(axes: Axes, lines: Sequence[Row]) -> None:
    for i, ((kind,), every) in enumerate(grouped_by(lines, "kind")):
        own = [x for x in every if x["auroc"] is not None]
        for key, mark, name in (("auroc", "o:", "r²"), ("auroc_whitened", "s-", "whitened")):
            places = [x[key] for x in own], [x["asr"] for x in own]
            axes.plot(*places, mark, color=f"C{i}", markersize=4, label=f"{kind}, {name}")
    axes.axvline(0.9, color="0.6", linewidth=1, linestyle="--")
    axes.set(title="Hiding the factor", xlabel="AUROC of the audit", ylabel="ASR")


_PANELS = ((_persistence, "persistence"), (_removability, "persistence"), (_cost, "adaptive"))
