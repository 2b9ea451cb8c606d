"""`python -m partcrop_lab.cli` is `partcrop-lab`."""

import sys

from partcrop_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
