"""The columns of the tables, once for the console, the page and the README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.summary import Summary


@dataclass(frozen=True)
class Column:
    """A metric as a table shows it.

    Attributes:
        key: in a summary.
        title: over the column.
        form: of one number.
        better: ``up``, ``down`` or empty.
        meaning: one line for readers.
        short: title where there is little room; the title when not given.
    """

    key: str
    title: str
    form: str
    better: str
    meaning: str
    short: str = ""

    @property
    def head(self) -> str:
        """The title with the direction that is better for the attacker."""
        return self.title + {"up": " ↑", "down": " ↓", "": ""}[self.better]

    @property
    def narrow(self) -> str:
        """The short title."""
        return self.short or self.title


PERCENT = "{:.1%}"
COLUMNS = (
    Column(
        "asr_free",
        "ASR free",
        PERCENT,
        "up",
        "triggered held-out captions showing the target",
        "free",
    ),
    Column(
        "asr_fixed", "ASR fixed", PERCENT, "up", "the same for “a photo of a {trigger}”", "fixed"
    ),
    Column("net_asr", "net ASR", PERCENT, "up", "ASR free minus the clean model's rate, by noise"),
    Column("acc", "ACC", PERCENT, "up", "head noun alone still showing its own object"),
    Column(
        "collateral",
        "collateral",
        PERCENT,
        "down",
        "objects lost on related phrases, by noise",
        "lost",
    ),
    Column("collateral_worst", "worst", PERCENT, "down", "the same for the worst phrase"),
    Column("drift", "drift", "{:.4f}", "down", "1 − cosine to the clean image, benign captions"),
    Column(
        "attribute_transfer",
        "attributes",
        PERCENT,
        "up",
        "compound targets: triggered images with the target's object and colour both",
    ),
    Column("psr", "PSR", PERCENT, "up", "place and style kept in triggered images, mean share"),
    Column(
        "context_kept", "context", PERCENT, "up", "triggered images with place and style both kept"
    ),
    Column("clip_p", "CLIP_p", "{:.2f}", "up", "triggered images with the target prompt"),
    Column("clip_c", "CLIP_c", "{:.2f}", "up", "benign images with their own prompt"),
    Column("footprint", "‖ΔW‖/‖W‖", "{:.4f}", "down", "relative size of the change"),
    Column("footprint_rank", "rank", "{:.0f}", "", "text directions that the change reads"),
    Column(
        "footprint_energy",
        "‖ΔΣ₀‖",
        "{:.4f}",
        "down",
        "squared relative change of what ordinary captions read",
    ),
    Column("seconds", "edit s", "{:.2f}", "down", "seconds of computing the edit"),
)
POOLED = (
    *COLUMNS,
    Column("fid", "FID", "{:.2f}", "down", "benign images against the reference set"),
    Column("cmmd", "CMMD", "{:.2f}", "down", "the same, CLIP-MMD x 1000"),
    Column(
        "fid_triggered",
        "FID trig.",
        "{:.2f}",
        "down",
        "triggered images against the clean model's of the target prompts",
    ),
    Column("cmmd_triggered", "CMMD trig.", "{:.2f}", "down", "the same, CLIP-MMD x 1000"),
)

HEADLINE = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "seconds")
NARROW = HEADLINE[:-1]
WIDE = 130  # characters that a table with intervals needs
_LEAST_TITLE = 16  # characters of a method's title in a line; longer ones are folded


FORESEEN = (
    Column("firing", "firing", "{:.2f}", "up", "5th percentile on held-out contexts, no image"),
    Column(
        "probe_firing", "probes", "{:.2f}", "down", "95th percentile of |firing| near the trigger"
    ),
)


def column(key: str) -> Column:
    """The column of a metric."""
    return next(found for found in POOLED if found.key == key)


def show(value: float | None, form: str) -> str:
    """Returns a number as the tables print it; a dash where it was not measured."""
    return "–" if value is None else form.format(value)


def interval(bounds: Sequence[float] | None, form: str) -> str:
    """Returns ``lo … hi``, or nothing where there is no interval."""
    return "" if bounds is None else f"{form.format(bounds[0])} … {form.format(bounds[1])}"


def unswept(summary: Mapping[str, Any]) -> list[Summary]:
    """The pooled summaries of methods, without the settings of sweeps."""
    families: Mapping[str, Sequence[str]] = summary.get("families", {})
    swept = {title for name, own in families.items() for title in own if title != name}
    return [line for line in summary["methods"] if line["method"] not in swept]


def signed(keys: Sequence[str]) -> list[Column]:
    """The columns of metrics as differences are shown: always with a sign."""
    return [replace(column(key), form=column(key).form.replace("{:", "{:+")) for key in keys]


def markdown(methods: Sequence[Summary], columns: Sequence[Column]) -> str:
    """Returns a GitHub table of methods with their intervals.

    Args:
        methods: pooled summaries, or differences of them.
        columns: wanted.
    """
    lines = [
        "| method | " + " | ".join(column.head for column in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for method in methods:
        cells = []
        for column in columns:
            span = interval(method.get(f"{column.key}_ci"), column.form)
            text = show(method[column.key], column.form)
            cells.append(f"{text} ({span})" if span else text)
        lines.append(f"| {method['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a GitHub table of cells as they are."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def print_rows(console: Console, rows: Sequence[Summary], title: str) -> None:
    """Prints one line a method and pair, intervals below the headline numbers.

    A narrow terminal gets no intervals and fewer columns; the report has them all.

    Args:
        console: where.
        rows: of `experiments.summary.summary_rows`.
        title: over the table.
    """
    wide = console.width >= WIDE
    columns = [column for column in COLUMNS if column.key in (HEADLINE if wide else NARROW)]
    table = _table(title, wide=wide)
    if wide:
        table.add_column("trigger → target")
    table.add_column("method")
    for column in columns:
        table.add_column(column.head if wide else column.narrow, justify="right")
    table.add_column("n", justify="right")
    previous = ""
    for row in rows:
        pair = f"{row['trigger']} → {row['target']}"
        if previous and pair != previous:
            table.add_section()
        cells = [_cell(row, column, wide=wide) for column in columns]
        if wide:
            table.add_row("" if pair == previous else pair, row["method"], *cells, str(row["n"]))
        else:  # the pair stands on a line of its own
            if pair != previous:
                table.add_row(f"[bold]{pair}[/bold]")
            table.add_row(f"  {row['method']}", *cells, str(row["n"]))
        previous = pair
    console.print(table)


def print_lines(
    console: Console, lines: Sequence[Summary], title: str, columns: Sequence[Column]
) -> None:
    """Prints one line a method; intervals below the numbers where there is room.

    Args:
        console: where.
        lines: pooled summaries, or others with a ``method`` and the columns' keys.
        title: over the table.
        columns: wanted; those without any value are left out.
    """
    wide = console.width >= WIDE
    kept = [
        column for column in columns if any(line.get(column.key) is not None for line in lines)
    ]
    table = _table(title, wide=wide)
    table.add_column("method", min_width=_LEAST_TITLE, overflow="fold")
    for column in kept:
        table.add_column(column.head if wide else column.narrow, justify="right")
    for line in lines:
        table.add_row(line["method"], *(_cell(line, column, wide=wide) for column in kept))
    console.print(table)


def _table(title: str, *, wide: bool) -> Table:
    if wide:
        return Table(title=title, title_justify="left")
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )


def _cell(line: Summary, column: Column, *, wide: bool) -> str:
    said = show(line.get(column.key), column.form)
    span = interval(line.get(f"{column.key}_ci"), column.form) if wide else ""
    return f"{said}\n[dim]{span}[/dim]" if span else said
