"""Where the program `partcrop-lab` begins: a package of its own, so that nothing slow is imported before it runs."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> int:
    """Import the program and run it; Ctrl-C during the imports, which take seconds, ends without a traceback."""
    try:
        from partcrop_lab.cli import main as run
    except KeyboardInterrupt:
        print("partcrop-lab: interrupted before it began", file=sys.stderr)
        return INTERRUPTED
    return run()
