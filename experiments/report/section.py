"""The one page: sections of tables, plots and pictures; console and Markdown show the same tables.

A page is one self-contained HTML file: pictures are inlined, nothing is fetched, every text from
outside is escaped.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from redediting.evaluation.frame import Column, Frame
from redediting.io import replace_text

QUICK = "A reduced run (--quick): it shows that everything works; its figures say nothing."
HARMLESS = (
    "Harmless objects only; the backdoors on this page exist for research on finding and removing "
    "them."
)


@dataclass(frozen=True)
class Plot:
    """A plot or another picture.

    Attributes:
        alt: what it shows, in words.
        data: of the file.
        kind: ``png`` or ``webp``.
        name: in file names, where it is published.
    """

    alt: str
    data: bytes
    kind: str = "png"
    name: str = ""

    @property
    def source(self) -> str:
        """Value of an ``src``."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: above it.
        frame: table.
        plot: picture.
        note: below the title, one paragraph of plain text.
        markup: HTML that is safe already: made by `markup`, or by code that escapes.
        folded: closed until a reader opens it; not printed on a console.
        level: of the title, 2 or 3.
    """

    title: str
    frame: Frame | None = None
    plot: Plot | None = None
    note: str = ""
    markup: str = ""
    folded: bool = False
    level: int = 2


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
        title: of the page.
        sections: in their order.
        lead: first paragraph.
        warning: in a box below it.
    """

    title: str
    sections: tuple[Section, ...]
    lead: str = HARMLESS
    warning: str = ""

    def html(self) -> str:
        """The page, self-contained."""
        environment = Environment(
            loader=PackageLoader("experiments.report", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["safe_html"] = Markup
        return environment.get_template("page.html.j2").render(report=self)

    def write(self, path: Path) -> Path:
        """Writes the page, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        replace_text(path, self.html())
        return path

    def print(self, console: Any = None) -> None:  # noqa: ANN401 - rich's, imported late
        """Prints the tables of sections that are not folded."""
        from rich.console import Console

        console = console or Console()
        for section in self.sections:
            if section.frame is not None and not section.folded:
                console.print(f"[bold]{section.title}[/bold]", highlight=False)
                section.frame.print(console)


def markup(template: str, **values: object) -> str:
    """HTML of a small inline template; values are escaped."""
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(
        **values
    )  # fmt: skip


def facts(pairs: Sequence[tuple[str, object]]) -> Frame:
    """A table of names and values."""
    rows = tuple({"name": name, "value": str(value)} for name, value in pairs)
    return Frame((Column("name", ""), Column("value", "")), rows)


def provenance_sections(folder: Path) -> tuple[Section, ...]:
    """What a run depends on, and its resolved configuration."""
    found = json.loads((folder / "provenance.json").read_text("utf-8"))
    versions = found.pop("versions")
    config = html.escape((folder / "config.yaml").read_text("utf-8"))
    return (
        Section("Provenance", facts([*found.items(), *versions.items()]), folded=True),
        Section("Configuration, resolved", markup=f"<pre>{config}</pre>", folded=True),
    )
