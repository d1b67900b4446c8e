"""Frames: the one form of a table, printed on the console, in Markdown, in HTML and as pandas."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from redediting.metrics.intervals import listed, span

if TYPE_CHECKING:
    import pandas as pd

Direction = Literal["up", "down", ""]
PERCENT = "{:.1%}"
_WIDE = 130  # characters that a table with intervals needs
_LONG = 40  # characters of a text that is broken into lines
_LEFT = ' class="left"'
_ARROWS = {"up": " ↑", "down": " ↓", "": ""}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: in a row.
        title: over the column.
        form: of one number, e.g. ``"{:.1%}"``; texts are printed as they are.
        direction: which way is better for the attacker: ``up``, ``down`` or empty.
        meaning: one line for readers.
        short: title where there is little room; the title when not given.
        unit: what the values of a cell without an interval are of.
    """

    key: str
    title: str
    form: str = "{}"
    direction: Direction = ""
    meaning: str = ""
    short: str = ""
    unit: str = "pairs"

    @property
    def head(self) -> str:
        """The title with the direction that is better for the attacker."""
        return self.title + _ARROWS[self.direction]

    def beside(self, row: Mapping[str, Any]) -> str:
        """The 95 % interval of a cell; where none holds, the values of its pairs; or nothing."""
        if (bounds := row.get(f"{self.key}_ci")) is not None:
            return span(bounds, self.form)
        return listed(row.get(f"{self.key}_values", ()), self.unit)

    def text(self, row: Mapping[str, Any], *, interval: bool = True) -> str:
        """The cell of a row: value and what stands beside it."""
        value, more = show(row.get(self.key), self.form), self.beside(row) if interval else ""
        return f"{value} ({more})" if more else value


@dataclass(frozen=True)
class Frame:
    """Rows under columns; the same ones for every reader.

    Attributes:
        columns: in their order.
        rows: values by the columns' keys; ``KEY_ci`` beside a key is its 95 % interval,
            ``KEY_values`` what is shown instead where there is none.
        title: over the table.
        note: below it: units, n, what an interval is over.

    Example:
        >>> from redediting.evaluation.frame import Column, Frame
        >>> frame = Frame((Column("a", "A", "{:.2f}"),), ({"a": 0.5, "a_ci": [0.4, 0.6]},))
        >>> print(frame.to_markdown())
        | A |
        | --- |
        | 0.50 (0.40 … 0.60) |
    """

    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    title: str = ""
    note: str = ""

    @property
    def known(self) -> tuple[Column, ...]:
        """Columns with a value in at least one row."""
        return tuple(c for c in self.columns if any(r.get(c.key) is not None for r in self.rows))

    def to_markdown(self) -> str:
        """A GitHub table."""
        lines = [[column.head for column in self.columns], ["---"] * len(self.columns)]
        lines += [[column.text(row) for column in self.columns] for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def to_html(self) -> str:
        """A table element; every text is escaped."""
        heads = "".join(
            f'<th{_LEFT if c.form == "{}" else ""} title="{html.escape(c.meaning)}">'
            f"{html.escape(c.head)}</th>"
            for c in self.columns
        )
        body = "".join(
            "<tr>" + "".join(_cell(c, row) for c in self.columns) + "</tr>" for row in self.rows
        )
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="scroll">{table}</div>{note}'

    def to_pandas(self) -> pd.DataFrame:
        """Every key of the rows as a column, intervals among them."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def print(self, console: Any = None) -> None:  # noqa: ANN401 - rich's Console, imported late
        """Prints to a rich console; a narrow one gets no intervals and short titles."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        console = console or Console()
        wide = console.width >= _WIDE
        table = Table(title=self.title or None, title_justify="left", box=SIMPLE_HEAD,
                      padding=(0, 1), pad_edge=False)  # fmt: skip
        for i, column in enumerate(columns := self.known):
            side: Literal["left", "right"] = "right" if i and column.form != "{}" else "left"
            head = column.head if wide else column.short or column.title
            table.add_column(head, justify=side, overflow="fold")
        for row in self.rows:
            table.add_row(*(column.text(row, interval=wide) for column in columns))
        console.print(table)
        if self.note:
            console.print(self.note, highlight=False, markup=False)

    def __str__(self) -> str:
        """The table as text, with intervals."""
        from rich.console import Console

        stream = io.StringIO()
        self.print(Console(file=stream, width=max(_WIDE, 22 * len(self.known))))
        return stream.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.to_html()


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    said = column.text(row, interval=False)
    small = f"<small>{html.escape(more)}</small>" if (more := column.beside(row)) else ""
    long = "" if column.form != "{}" else ' class="text"' if len(said) > _LONG else ' class="left"'
    return f"<td{long}>{html.escape(said)}{small}</td>"


def show(value: object, form: str = "{}") -> str:
    """A value as tables print it; a dash where it was not measured."""
    if value is None:
        return "–"
    return form.format(value) if isinstance(value, int | float) else str(value)
