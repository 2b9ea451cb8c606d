"""Settings under which every recipe trains within a second, and what the tests of training share."""

import json

TINY_VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
TINY_RESNET = {"model": "resnet18", "channels": (8, 8, 16, 32)}
HEADS = {"hidden": 64, "output": 32}
DISTILLED = {"prototypes": 64, "hidden": 64, "bottleneck": 32, "local_crops": 2}

SMALL = {
    "barlowtwins": TINY_VIT | HEADS,
    "byol": TINY_VIT | HEADS,
    "cae": TINY_VIT | {"regressor_depth": 1, "decoder_depth": 1},
    "dino": TINY_VIT | DISTILLED,
    "ibot": TINY_VIT | DISTILLED,
    "mae": TINY_VIT | {"decoder_width": 48, "decoder_depth": 1, "decoder_heads": 3},
    "mocov2": TINY_RESNET | HEADS | {"queue": 24},
    "mocov3": TINY_VIT | HEADS,
    "simclr": TINY_VIT | HEADS,
    "simmim": TINY_VIT,
    "supervised": TINY_VIT | {"classes": 10},
    "swav": TINY_VIT | HEADS | {"prototypes": 8, "local_crops": 2},
    "vicreg": TINY_VIT | HEADS,
}


def settings(recipe):
    """Keywords of `pretrain`."""
    return SMALL[recipe] | {"batch_size": 12, "progress": False}


def losses(folder):
    """The loss of every epoch that a run has saved."""
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
