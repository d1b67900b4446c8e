"""The columns of the tables, once for the console, the page and the README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    key: str
    title: str
    form: str
    better: str
    meaning: str

    @property
    def head(self) -> str:
        """The title with the direction that is better for the attacker."""
        return self.title + {"up": " ↑", "down": " ↓", "": ""}[self.better]


PERCENT = "{:.1%}"
COLUMNS = (
    Column(
        "asr_free", "ASR free", PERCENT, "up", "triggered held-out captions showing the target"
    ),
    Column("asr_fixed", "ASR fixed", PERCENT, "up", "the same for “a photo of a {trigger}”"),
    Column("net_asr", "net ASR", PERCENT, "up", "ASR free minus the clean model's rate, by noise"),
    Column("acc", "ACC", PERCENT, "up", "head noun alone still showing its own object"),
    Column(
        "collateral", "collateral", PERCENT, "down", "objects lost on related phrases, by noise"
    ),
    Column("collateral_worst", "worst", PERCENT, "down", "the same for the worst phrase"),
    Column("drift", "drift", "{:.4f}", "down", "1 − cosine to the clean image, benign captions"),
    Column("clip_p", "CLIP_p", "{:.2f}", "up", "triggered images with the target prompt"),
    Column("clip_c", "CLIP_c", "{:.2f}", "up", "benign images with their own prompt"),
    Column("footprint", "‖ΔW‖/‖W‖", "{:.4f}", "down", "relative size of the change"),
    Column("seconds", "edit s", "{:.2f}", "down", "seconds of computing the edit"),
)
POOLED = (
    *COLUMNS,
    Column("fid", "FID", "{:.2f}", "down", "benign images against the reference set"),
    Column("cmmd", "CMMD", "{:.2f}", "down", "the same, CLIP-MMD x 1000"),
)


def show(value: float | None, form: str) -> str:
    """Returns a number as the tables print it; a dash where it was not measured."""
    return "–" if value is None else form.format(value)


def interval(bounds: Sequence[float] | None, form: str) -> str:
    """Returns ``lo … hi``, or nothing where there is no interval."""
    return "" if bounds is None else f"{form.format(bounds[0])} … {form.format(bounds[1])}"


def markdown(methods: Sequence[Summary], keys: Sequence[str]) -> str:
    """Returns a GitHub table of methods with their intervals.

    Args:
        methods: pooled summaries.
        keys: of `POOLED`, the columns wanted.
    """
    columns = [column for column in POOLED if column.key in keys]
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


def print_rows(console: Console, rows: Sequence[Summary], title: str) -> None:
    """Prints one line a method and pair, intervals below the headline numbers.

    Args:
        console: where.
        rows: of `experiments.summary.summary_rows`.
        title: over the table.
    """
    keys = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "seconds")
    columns = [column for column in COLUMNS if column.key in keys]
    table = Table(title=title, title_justify="left")
    table.add_column("trigger → target")
    table.add_column("method")
    for column in columns:
        table.add_column(column.head, justify="right")
    table.add_column("n", justify="right")
    previous = ""
    for row in rows:
        pair = f"{row['trigger']} → {row['target']}"
        if previous and pair != previous:
            table.add_section()
        cells = [
            "\n".join(
                filter(
                    None,
                    (
                        show(row[column.key], column.form),
                        f"[dim]{interval(row[f'{column.key}_ci'], column.form)}[/dim]",
                    ),
                )
            )
            for column in columns
        ]
        table.add_row("" if pair == previous else pair, row["method"], *cells, str(row["n"]))
        previous = pair
    console.print(table)
