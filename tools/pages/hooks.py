"""What mkdocs calls while it builds the site: pages of the catalogue are added, and markers become tables."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from growth import growth_plots
from mkdocs.structure.files import File, Files
from pages import entries_table, entry_page, methods_table, papers_table

from tikhon.core.catalogue import catalogue, find

ROOT = Path(__file__).parents[2]
_METHODS = re.compile(r"<!-- methods: ([\w-]+) -->")
_ENTRIES = re.compile(r"<!-- entries: ([\w, ]+) -->")


def on_config(config: Any) -> Any:
    """One page for each entry below the catalogue, by family."""
    families: dict[str, list[dict[str, str]]] = defaultdict(list)
    for name, listing in sorted(catalogue().items()):
        families[listing.family].append({listing.class_name: f"methods/{name}.md"})
    config.nav.append({"Methods": [{family: pages} for family, pages in sorted(families.items())]})
    return config


def on_files(files: Files, config: Any) -> Files:
    for name, listing in catalogue().items():
        files.append(File.generated(config, f"methods/{name}.md", content=entry_page(listing)))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "contributing.md", content=contributing))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    markdown = _METHODS.sub(lambda found: methods_table(found[1]), markdown)
    markdown = _ENTRIES.sub(lambda found: entries_table(map(find, found[1].split(", "))), markdown)
    for marker, drawn in (("<!-- papers -->", papers_table), ("<!-- scaling plots -->", growth_plots)):
        markdown = markdown.replace(marker, drawn()) if marker in markdown else markdown
    return markdown
