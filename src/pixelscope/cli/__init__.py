"""The command line: parses arguments, calls the public API and prints the result.

No module here imports torch, and a command's module is imported only if that command runs or prints its help.
"""

from pixelscope.cli.main import main

__all__ = ["main"]
