"""Templates rendered as pages: one HTML file each, which needs nothing but a browser."""

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tikhon.core.errors import TikhonError

ENDINGS = (".html", ".htm")


def render(template: str, **values: Any) -> str:
    """A template of this package with its values, which are escaped."""
    environment = Environment(
        loader=PackageLoader("tikhon.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def refuse_no_page(path: str | os.PathLike[str]) -> None:
    """TikhonError where a page cannot go to this place, before anything is computed for it."""
    target = Path(path)
    if target.is_dir():
        raise TikhonError(f"{target} is a folder: name the file of the page, for example {target / 'report.html'}.")
    if target.suffix.lower() not in ENDINGS:
        raise TikhonError(f"{target} does not end in .html: name the file of the page {target.with_suffix('.html')}.")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise TikhonError(f"{target} cannot be written into {above}: name a place that can be written to.")
