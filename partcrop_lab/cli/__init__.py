"""The shell, a thin layer over the package's functions: `partcrop-lab audit|queries|compare|pretrain|figures|...`.

Exit status: 0 done; 2 bad usage or input, with one line on stderr; 3 `--fail-above` exceeded; 4 confounded; 1 a fault
of ours; 130 interrupted, 143 terminated, 141 where whoever read the output has gone.
"""

# each of these joins its commands to the program
from partcrop_lab.cli import audits, comparisons, course, defenses, dejavu, figures, training, upkeep, zoo  # noqa: F401
from partcrop_lab.cli.base import app
from partcrop_lab.cli.options import attack_of
from partcrop_lab.cli.program import main

__all__ = ["app", "attack_of", "main"]
