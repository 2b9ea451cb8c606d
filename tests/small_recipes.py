"""Settings under which every recipe trains within a second, and what the tests of training share."""

import json

TINY_VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
HEADS = {"hidden": 64, "output": 32}
DISTILLED = {"prototypes": 64, "hidden": 64, "bottleneck": 32, "local_crops": 2}

SMALL = {
    "dino": TINY_VIT | DISTILLED,
    "mae": TINY_VIT | {"decoder_width": 48, "decoder_depth": 1, "decoder_heads": 3},
    "mocov3": TINY_VIT | HEADS,
}


def settings(recipe):
    """Keywords of `pretrain`."""
    return SMALL[recipe] | {"batch_size": 12, "progress": False}


def losses(folder):
    """The loss of every epoch that a run has saved."""
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
