"""How fast part responses are extracted, against the encoder alone and against a literal pipeline.

``python benchmarks/extraction.py`` prints three tables:

1. extraction over the bare forward of the same crops at the same precision, fp32 and bf16 (at most 1.15);
2. an audit's target, end to end, over a literal pipeline that cuts every crop with PIL, forwards each image's parts
   in fp32 and does it all again in each of 100 epochs (at least 100 times faster, AUC intervals overlapping);
3. peak resident memory of extraction from 250, 1,000 and 4,000 images streamed from disk.

Times are ratios in one run on one thread; all take about fifteen minutes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import in_a_process, in_turn, resident
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms.functional import to_tensor
from tqdm.auto import trange

import partcrop_lab as pl
from partcrop_lab.attacks import MLPAttacker, PartCrop
from partcrop_lab.audit.crossfit import assign_folds, cross_fit
from partcrop_lab.audit.stats import fold_auc
from partcrop_lab.devices import PRECISIONS, bf16_is_fast
from partcrop_lab.parts import cut_parts, part_boxes

EPOCHS = 100


def time_ratio(one: Callable[[], object], other: Callable[[], object], runs: int = 5) -> float:
    """Median time of `one` over that of `other`, by the clock on the wall."""
    return float(np.divide(*in_turn(one, other, runs, clock=time.perf_counter)))


def over_bare_forward(encoder: pl.Encoder, images: pl.ImageSet, attack: PartCrop) -> float:
    """Time of measuring images over that of forwarding the same images and ready-made crops.

    Chips without bf16 in hardware emulate it, ten times slower and more; they get fewer images.
    """
    count = 8 if encoder.run["precision"] == "bf16" and not bf16_is_fast() else 64
    batch, hashes = images.batch(slice(0, count)), images.hashes[:count]
    crops = part_boxes(hashes, attack.crops, images.size, attack.scale)
    parts = cut_parts(batch, crops, encoder.part_size).flatten(0, 1)
    with torch.inference_mode():
        return time_ratio(
            lambda: attack.measure(encoder, batch, hashes, 0),
            lambda: (encoder.feature_map(batch), encoder.vectors(parts, attack.pooling)),
        )


def literal_features(encoder: pl.Encoder, images: pl.ImageSet, attack: PartCrop) -> np.ndarray:
    """One epoch of a literal pipeline: every crop by PIL, one forward for each image and for its parts."""
    cut = RandomResizedCrop(encoder.part_size, attack.scale, interpolation=InterpolationMode.BICUBIC)
    flip, rows = RandomHorizontalFlip(), []
    for i in range(len(images)):
        image = images[i]
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        parts = torch.stack([to_tensor(flip(cut(picture))) for _ in range(attack.crops)])
        vectors = encoder.vectors(parts, attack.pooling)
        rows.append(pl.membership_features(encoder.feature_map(image[None]), vectors[None]).numpy())
    return np.concatenate(rows)


def literal_scores(encoder: pl.Encoder, split: pl.MembershipSplit, fold: np.ndarray, attack: PartCrop) -> np.ndarray:
    """Cross-fitted scores of attackers trained for `EPOCHS` epochs on features that are extracted anew in each.

    All images are extracted in each epoch, as the released code does: half to train on, half to evaluate.
    """
    torch.manual_seed(0)
    member, trainers = split.member, {}
    scores = np.empty(len(member))
    for _ in trange(EPOCHS, desc="literal pipeline"):
        X = literal_features(encoder, split.images, attack)
        for k in (0, 1):
            trainers.setdefault(k, EpochByEpoch(X[fold != k], member[fold != k], k)).train(X[fold != k])
            scores[fold == k] = trainers[k].score(X[fold == k])
    return scores


class EpochByEpoch:
    """The MLP attacker with its optimiser kept, so that each epoch can bring new features."""

    def __init__(self, X: np.ndarray, y: np.ndarray, seed: int) -> None:
        self.attacker = MLPAttacker(epochs=0, random_state=seed).fit(X, y.astype(int))
        self.generator = torch.Generator().manual_seed(seed)
        self.targets = torch.from_numpy(y.astype(np.float32))
        self.sides = [torch.nonzero(self.targets == side).flatten() for side in (0, 1)]
        self.adam = torch.optim.Adam(self.attacker.network_.parameters(), lr=1e-3, weight_decay=5e-4)

    def train(self, X: np.ndarray) -> None:
        self.attacker._epoch(self.attacker._tensor(X), self.targets, self.sides, self.adam, self.generator)

    def score(self, X: np.ndarray) -> np.ndarray:
        return self.attacker.decision_function(X)


def against_literal(name: str, split: pl.MembershipSplit, attack: PartCrop) -> None:
    """Print the speed-up and both AUCs."""
    fp32, member = pl.load_encoder(name, precision="fp32"), split.member
    fold = assign_folds(member, 2, 0)
    start = time.perf_counter()
    slow = literal_scores(fp32, split, fold, attack)
    literal = time.perf_counter() - start
    start = time.perf_counter()
    X = attack.features(pl.load_encoder(name), split.images, progress=False)
    quick = cross_fit(X, member, fold, "mlp", 0).scores
    ours = time.perf_counter() - start
    for label, scores in (("literal", slow), ("ours", quick)):
        print("AUC {:8} {:.3f} ({:.3f} to {:.3f})".format(label, *fold_auc(scores, member, fold)))
    print(f"literal pipeline over ours, end to end: {literal / ours:.0f} times ({literal:.0f} s over {ours:.1f} s)")


def peak_memory(count: int, folder: Path) -> int:
    """Peak resident bytes of a process that extracts features of `count` images of 224 px streamed from disk."""
    path, rng = folder / f"{count}.npy", np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, 224, 224))
    for i in range(count):
        pixels[i] = rng.integers(0, 256, (3, 224, 224), dtype=np.uint8)
    pixels.flush()
    (peak,) = in_a_process("extraction", f"stream({str(path)!r})")
    path.unlink()
    return int(peak)


def stream(path: str) -> None:
    """Extract features of the images in a .npy file and print this process's peak resident bytes (Linux)."""
    torch.set_num_threads(1)
    encoder = pl.load_encoder("random:vit_tiny_patch16_224", image_size=32, patch_size=8, depth=1)
    PartCrop(crops=4).features(encoder, pl.ImageSet(Path(path)), progress=False)
    print(resident())


def main(
    encoder: Annotated[str, typer.Option(help="A leaking encoder that carries its split.")] = "zoo:mae",
    images: Annotated[int, typer.Option(help="Members, and non-members, of the comparison.")] = 50,
) -> None:
    torch.set_num_threads(1)
    attack = PartCrop()
    small = pl.load_images("partshapes", n=64, size=32)
    split = pl.load_encoder(encoder).split
    print(f"bf16 in hardware: {'yes' if bf16_is_fast() else 'no'}")
    print("extraction over the bare forward, same crops and precision (128 crops, median of 5):")
    for precision in PRECISIONS:
        paper = pl.load_encoder("random:vit_tiny_patch16_224", image_size=32, patch_size=8, precision=precision)
        mine = pl.load_encoder(encoder, precision=precision)
        print(f"  ViT-Ti/8, 32 px, {precision}   {over_bare_forward(paper, small, attack):.2f}")
        print(f"  {encoder:15}, {precision}   {over_bare_forward(mine, split.images, attack):.2f}")
    some = pl.MembershipSplit(
        split.members.subset(slice(0, images)), split.nonmembers.subset(slice(0, images)), "drawn"
    )
    against_literal(encoder, some, attack)
    with tempfile.TemporaryDirectory() as folder:
        print("peak resident memory, images of 224 px streamed from disk:")
        for count in (250, 1000, 4000):
            peak = peak_memory(count, Path(folder)) / 2**20
            print(f"  {count:5} images ({count * 3 * 224**2 / 2**20:4.0f} MiB of pixels): {peak:.0f} MiB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["PARTCROP_LAB_CACHE"] = cache
        typer.run(main)
