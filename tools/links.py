"""Follow every link to other sites once, of README and of the built site, and name those that are dead: `make links`.

It needs the network, so it is no part of the tests. Exit code 1: dead links; 2: no network, so that nothing is known.
"""

from __future__ import annotations

import html
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS, AT_ONCE = 20.0, 4

FORBIDDEN = {401, 403, 405, 429}
"""The site is there and does not serve programs."""


def links(pages: Iterable[Path]) -> dict[str, list[str]]:
    """Address -> the pages that link to it, of HTML and of Markdown. What a block of code shows is no link."""
    found: dict[str, list[str]] = {}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".html":
            every = [html.unescape(one) for one in re.findall(r'<a [^>]*?href="?(https?://[^\s">]+)', text)]
        else:
            text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
            every = re.findall(r"(?:\]\(|<)(https?://[^\s<>)]+)", text)
        for address in dict.fromkeys(one.partition("#")[0] for one in every):
            found.setdefault(address, []).append(page.parent.name if page.name == "index.html" else page.name)
    return found


def dead(address: str) -> str | None:
    """Why a link leads nowhere; None where it leads somewhere. Raises URLError where the network itself fails."""
    request = urllib.request.Request(address, headers={"User-Agent": "tikhon links"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code in FORBIDDEN else f"{error.code} {error.reason}"
    except (TimeoutError, ConnectionError) as error:
        raise urllib.error.URLError(error) from error


def main(pages: Iterable[Path]) -> int:
    every = links(pages)
    wrong: dict[str, str] = {}
    unreached: dict[str, str] = {}

    def follow(address: str) -> None:
        try:
            reason = dead(address)
        except urllib.error.URLError as error:
            unreached[address] = str(error.reason)
        else:
            if reason is not None:
                wrong[address] = reason

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(follow, every))
    if every and len(unreached) == len(every):
        print(f"No network: none of {len(every)} addresses was reached, so nothing is known of them.", file=sys.stderr)
        print(f"For example {next(iter(unreached))}: {next(iter(unreached.values()))}", file=sys.stderr)
        return 2
    for address, reason in sorted((wrong | unreached).items()):
        print(f"{address}  {reason}  in {', '.join(every[address][:3])}")
    print(f"{len(every) - len(wrong) - len(unreached)} of {len(every)} links lead somewhere.")
    return 1 if wrong or unreached else 0


if __name__ == "__main__":
    written = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    sys.exit(main([*written, *sorted((ROOT / "site").rglob("*.html"))]))
