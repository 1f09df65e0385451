"""The command line: parses, calls the public API, prints what it returns.

Nothing here imports torch: `--help` answers at once, and only a command that computes pays for what it uses.
"""

from pixelscope.cli.entry import main

__all__ = ["main"]
