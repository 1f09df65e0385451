"""How damaged files of arrays show themselves."""

import zipfile
import zlib
from tokenize import TokenError

UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, LookupError, NameError, ArithmeticError, SyntaxError, MemoryError,
    NotImplementedError, TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and scipy raise for files that are damaged or cut off."""
