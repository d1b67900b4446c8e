"""The one place where report pages are rendered: escaped, and strict about what is missing."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.report.tables import interval, show


def render(template: str, **values: object) -> str:
    """Returns a page.

    Args:
        template: file name beside this module.
        values: what it shows; ``show`` and ``interval`` are always there.
    """
    environment = Environment(
        loader=PackageLoader("experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(show=show, interval=interval)
    return environment.get_template(template).render(**values)
