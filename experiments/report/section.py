"""The one page: sections of tables, plots and pictures; console and Markdown show the same tables.

A page is one self-contained HTML file: pictures are inlined, nothing is fetched, every text from
outside is escaped.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """A plot or another picture."""

    alt: str  # what it shows, in words
    data: bytes  # of the file
    kind: str = "png"  # ``png`` or ``webp``
    name: str = ""  # in file names, where it is published

    @property
    def source(self) -> str:
        """Value of an ``src``."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str  # above it
    frame: Frame | None = None  # table
    plot: Plot | None = None  # picture
    note: str = ""  # below the title, one paragraph of plain text
    markup: str = ""  # HTML that is safe already: made by `markup`, or by code that escapes
    folded: bool = False  # closed until a reader opens it; not printed on a console
    level: int = 2  # of the title, 2 or 3


@dataclass(frozen=True)
class Report:
    """A page."""

    title: str  # of the page
    sections: tuple[Section, ...]  # in their order
    lead: str = HARMLESS  # first paragraph
    warning: str = ""  # in a box below it

    def of_run(self, folder: Path | None) -> Report:
        """The page with what its run depends on, and a warning if that was reduced."""
        if folder is None:
            return self
        found = json.loads((folder / "provenance.json").read_text("utf-8"))
        versions = found.pop("versions")
        config = html.escape((folder / "config.yaml").read_text("utf-8"))
        made = (
            Section("Provenance", facts([*found.items(), *versions.items()]), folded=True),
            Section("Configuration, resolved", markup=f"<pre>{config}</pre>", folded=True),
        )
        warning = QUICK if found["quick"] else self.warning
        return replace(self, sections=(*self.sections, *made), warning=warning)

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
        """Writes the page, whole or not at all; `OutputError` where it cannot."""
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
