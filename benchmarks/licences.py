"""Licences of all packages that constraints.txt names: python -m benchmarks.licences, which writes docs/licences.md.

They are read from the metadata of the installed packages, so that the environment must have every extra.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
HEAD = """# Licences of the packages

Written by `python -m benchmarks.licences` from the metadata of the packages in constraints.txt: those of every extra and of the
tests. Which of them an installation has depends on its extras (`pip install "pixelscope[...]"`). The CUDA packages that torch
brings on Linux are under NVIDIA's own licences. Pixelscope itself is under the licence in [LICENSE](../LICENSE).

## Known vulnerabilities
[pip-audit](https://github.com/pypa/pip-audit) compares the exact versions with the advisories that are known:
```
python -m pip install pip-audit
pip-audit --no-deps --disable-pip -r constraints.txt
```

## Licences
| package | version | licence |
|---|---|---|
"""


def pinned() -> dict[str, str]:
    """Return the version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def licence(package: str) -> str:
    """Return what the metadata of an installed package says, the most exact entry first."""
    try:
        found = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return "not installed"
    expression, named = (found[key].strip() if key in found else "" for key in ("License-Expression", "License"))
    kinds = [entry.rsplit(" :: ", 1)[-1] for entry in found.get_all("Classifier", []) if entry.startswith("License ::")]
    kinds = [kind for kind in kinds if kind != "OSI Approved"]
    # Some packages put the whole text of the licence there.
    short = named if named and "\n" not in named and len(named) < 80 else ""
    return re.sub(r"\s+", " ", expression or short or "; ".join(kinds) or named.split("\n")[0][:80] or "not stated")


def main() -> int:
    """Write the page; the exit code is 1 where a package is not installed."""
    rows = [(name, version, licence(name)) for name, version in sorted(pinned().items(), key=lambda one: one[0].lower())]
    PAGE.write_text(HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")
    absent = [name for name, _, found in rows if found == "not installed"]
    print(f"{PAGE}: {len(rows)} packages; not installed: {', '.join(absent) or 'none'}")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
