"""The command `tikhon`.

Worker processes import this module again when they start, so it imports nothing itself.
"""

import importlib


def main() -> None:
    """What the installed command calls."""
    importlib.import_module("tikhon.cli.app").app()
