"""The queries of an attack written to a file, for an encoder that can be asked but not loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from partcrop_lab.attacks.base import SHARD, Attack
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.recorded import Recorder
from partcrop_lab.images import MembershipSplit
from partcrop_lab.progress import bar


def write_queries(
    path: str | Path,
    attack: Attack,
    split: MembershipSplit,
    *,
    name: str = "remote",
    image_size: int | None = None,
    view_side: int | None = None,
    patch: int = 16,
    seed: int = 0,
    repeats: int = 1,
    progress: bool = True,
) -> dict[int, int]:
    """Write every image that an audit of this split would ask an encoder, and what it is for.

    Parts and views are rounded to 8 bits. The order of the queries tells nothing of membership, but the split's record
    in the file does: hand on the arrays of queries alone where whoever answers them should not know.

    Args:
        path: of the .npz file; its form is told in `partcrop_lab.encoders.recorded`.
        attack: which queries are made.
        split: members and non-members, of files or named sets, since the audit loads them again.
        name: what reports will call the encoder.
        image_size: side in pixels of whole images; that of the split's where None.
        view_side: of the views that it was trained on, at which crops are sent; that of whole images where None.
        patch: pixels between neighbouring positions of the encoder's feature map; decides the size of parts.
        seed, repeats: as the audit will have them.
        progress: show a bar.

    Returns:
        How many queries there are, by side in pixels.

    Raises:
        BadInput: images handed over as arrays, or a folder that cannot be written.
        ValueError: a setting of the attack that no encoder of this patch could answer, or a view_side below 1.
    """
    split.check_stored()
    side, images = image_size or split.images.size, split.images
    order = np.argsort(np.array(images.hashes), kind="stable")  # so that their order tells nothing of membership
    recorder = Recorder(patch)
    sizes = {"image_size": side, "view_side": view_side, "patch": patch}
    encoder = Encoder(recorder, name=name, **sizes)
    shards = [order[start : start + SHARD] for start in range(0, len(order), SHARD)]
    with torch.inference_mode():
        for shard in bar(shards, "queries", unit="shard", shown=progress):
            for r in range(repeats):
                attack.measure(encoder, images.batch(shard), [images.hashes[i] for i in shard], seed + r)
    about = {"name": name, "attack": attack.label, "seed": seed, "repeats": repeats, "split": split.record(), **sizes}
    recorder.save(Path(path), about)
    return {side: len(kept) for side, kept in sorted(recorder.images.items())}
