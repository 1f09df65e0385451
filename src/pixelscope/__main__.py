"""`python -m pixelscope` is the command `pixelscope`."""

import sys

from pixelscope.cli import main

# Processes that are spawned for further devices import this file again, and must not run the command again.
if __name__ == "__main__":
    sys.exit(main())
