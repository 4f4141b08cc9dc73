"""Write `src/tikhon/__init__.pyi`: `make stubs`.

`tikhon.MixUp` is imported when it is first used, which no type checker can follow. The stub says where everything is.
"""

from pathlib import Path

import tikhon
from tikhon.core.catalogue import by_class, measures
from tikhon.core.files import write_whole

STUB = Path(tikhon.__file__).with_suffix(".pyi")


def stub() -> str:
    """The public names of the package, its measures and every entry of the catalogue, each from where it is defined."""
    homes = {name: f"tikhon.core.{home}" for name, home in tikhon._HOMES.items()}
    homes |= {name: f"tikhon.report.{home}" for name, home in tikhon._REPORTS.items()}
    homes |= measures() | {name: listing.module for name, listing in by_class().items()}
    imports = [f"from {home} import {name} as {name}" for name, home in homes.items()]
    public = [f'    "{name}",' for name in sorted(tikhon.__all__)]  # as at run time: `import *` gives no methods
    return "\n".join(
        [
            "# Written by `make stubs`: what the package holds, for type checkers and editors. ruff: noqa: I001",
            "from tikhon import data as data",
            *sorted(imports),
            "",
            "__version__: str",
            "",
            "__all__ = [",
            *public,
            "]",
            "",
        ]
    )


if __name__ == "__main__":
    write_whole(stub(), STUB)
