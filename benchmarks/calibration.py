"""Do the audit's verdicts hold their level, and do they see what they must? (METHODS 3.5, 3.6)

``python benchmarks/calibration.py --images train.parquet`` runs 200 null audits and the power scenarios through
the whole audit on CIFAR-10 and writes one row per audit to benchmarks/calibration.csv, then the summary. It resumes
where it was stopped. About two hours on one core; the tests run ten null audits of it on partshapes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from grid import grow
from PIL import Image

import partcrop_lab as pl
from partcrop_lab.devices import generator
from partcrop_lab.images.resample import resize

CSV = Path(__file__).with_suffix(".csv")
SPARE = 10  # images drawn beyond those needed, since near duplicates are dropped
AUC_OF_PLANT = 0.75
NULL = "no leak"  # not "null", which pandas reads as a missing value


def untrained_vit(seed: int, side: int = 32) -> pl.Encoder:
    """A ViT-Ti/8 of depth 6 that was never trained on anything."""
    return pl.load_encoder("random:vit_tiny_patch16_224", image_size=side, patch_size=8, depth=6, seed=seed)


def group(images: pl.ImageSet, rep: int, each: int) -> pl.ImageSet:
    """Group `rep` of the images, disjoint from all others: two times `each`, and some to spare."""
    width = 2 * each + SPARE
    return images.subset(np.arange(rep * width, (rep + 1) * width))


def null_audit(images: pl.ImageSet, rep: int, each: int = 100) -> pl.AuditResult:
    """Audit a fresh random encoder on group `rep` of the images: `each` members and as many non-members."""
    split = pl.member_split(group(images, rep, each), members=each, seed=rep)
    attack = pl.attacks.PartCrop(crops=32)
    return pl.audit(untrained_vit(rep), split, attack, seed=rep, permutations=1, progress=False)


def two_sets(images: pl.ImageSet, rep: int, each: int) -> tuple[pl.ImageSet, pl.ImageSet]:
    """Two disjoint sets of one pool, for repetition `rep`."""
    pool = images.subset(np.random.default_rng([1, rep]).permutation(len(images))[: 2 * each + 5 * SPARE])
    split = pl.member_split(pool, members=each, seed=rep)
    return split.members, split.nonmembers


def changed(images: pl.ImageSet, change: Callable[[torch.Tensor], torch.Tensor]) -> pl.ImageSet:
    """The same images, each batch passed through `change`."""
    pixels = torch.cat([change(batch) for batch in images.batches()])
    return pl.ImageSet(pixels, images.names, images.labels, images.classes)


def jpeg(quality: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def encode(image: torch.Tensor) -> torch.Tensor:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer := io.BytesIO(), "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)

    return lambda images: torch.stack([encode(image) for image in images])


def smaller_and_back(images: torch.Tensor) -> torch.Tensor:
    back = resize(resize(images, images.shape[-1] * 7 // 8), images.shape[-1])
    return (back * 255).round().clamp(0, 255).to(torch.uint8)


def planted(split: pl.MembershipSplit, rep: int) -> pl.Encoder:
    """A random encoder whose feature maps are scaled by exp(z), z ~ N(0, 1) and higher for members.

    The scale alone tells members from non-members with AUC 0.75; the attack must find it among all else that
    differs between images.
    """
    base = untrained_vit(rep)
    gap = np.sqrt(2) * torch.distributions.Normal(0, 1).icdf(torch.tensor(AUC_OF_PLANT)).item()
    z = torch.randn(len(split.images), generator=generator("planted", rep)) + gap * torch.from_numpy(split.member)
    scale = {image.numpy().tobytes(): value for image, value in zip(split.images.batch(slice(None)), z.exp().tolist())}

    def forward(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps, cls = (
            base.tokens(images) if images.shape[-1] == 32 else (torch.zeros(len(images), 4, 1), base.vectors(images))
        )
        keys = [image.numpy().tobytes() for image in (images * 255).round().to(torch.uint8)]
        return maps * torch.tensor([scale.get(key, 1.0) for key in keys])[:, None, None], cls

    card = {"split_digest": split.digest}
    untrained = lambda seed: untrained_vit(seed).tokens  # noqa: E731
    return pl.load_encoder(
        forward, image_size=32, patch=8, name="planted", card=card, untrained=untrained, micro_batch=256
    )


def power_audit(images: pl.ImageSet, scenario: str, rep: int, each: int = 500) -> pl.AuditResult:
    """Audit one scenario that must be found: a planted memory, or two sets that differ by more than membership."""
    members, others = two_sets(images, rep, each)
    protocol, encoder = "matched", untrained_vit(10_000 + rep)
    if scenario == "class mix":
        vehicles = np.isin(images.labels, [0, 1, 8, 9])  # CIFAR-10: aeroplane, car, ship, lorry
        members, others = class_mix(images, vehicles, rep, each)
    elif scenario == "jpeg":
        members, others = changed(members, jpeg(75)), changed(others, jpeg(90))
    elif scenario == "resize":
        members = changed(members, smaller_and_back)
    split = pl.member_split(members, others, drop_duplicates=True)
    if scenario == "planted":
        encoder = planted(split, rep)
    elif scenario == "released":
        protocol = "released"
    attack = pl.attacks.PartCrop(crops=16)
    return pl.audit(encoder, split, attack, seed=rep, permutations=1, protocol=protocol, progress=False)


def class_mix(images: pl.ImageSet, vehicles: np.ndarray, rep: int, each: int) -> tuple[pl.ImageSet, pl.ImageSet]:
    """Members of which 80 % show vehicles, non-members of which 20 % do; all other images animals."""
    rng = np.random.default_rng([2, rep])
    first, second = (rng.permutation(np.flatnonzero(side)) for side in (vehicles, ~vehicles))
    most, least = round(0.8 * each), each - round(0.8 * each)
    members, others = np.append(first[:most], second[:least]), np.append(first[most:each], second[least:each])
    return images.subset(members), images.subset(others)


EXPECTED = {
    "planted": "Evidence of leakage",
    **dict.fromkeys(("released", "jpeg", "resize", "class mix"), "Confounded"),
}


def row(scenario: str, rep: int, result: pl.AuditResult) -> dict:
    auc = dict(zip(("auc", "low", "high"), result.metrics.loc["auc", ["value", "low", "high"]].round(4)))
    controls = {f"p_{name}": p for name, p in result.controls.p_value.items()}
    sizes = {name: result.settings[name] for name in ("members", "nonmembers")}
    return {
        "scenario": scenario,
        "rep": rep,
        **sizes,
        **auc,
        "p_value": result.p_value,
        **controls,
        "outcome": result.outcome,
    }


def audited(pool: pl.ImageSet, scenario: str, rep: int) -> list[dict]:
    return [row(scenario, rep, null_audit(pool, rep) if scenario == NULL else power_audit(pool, scenario, rep))]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given, per scenario."""
    counts = rows.groupby("scenario").outcome.value_counts().unstack(fill_value=0)
    sizes = rows.groupby("scenario").agg(audits=("rep", "size"), members=("members", "median"))
    return sizes.join(counts)


def main(
    images: Annotated[str, typer.Option(help="CIFAR-10: a parquet file, or cifar10 for torchvision's.")] = "cifar10",
    nulls: Annotated[int, typer.Option(help="Null audits.")] = 200,
    reps: Annotated[int, typer.Option(help="Audits of each power scenario.")] = 20,
    out: Annotated[Path, typer.Option(help="CSV of all audits; finished ones are not run again.")] = CSV,
) -> None:
    torch.set_num_threads(1)
    pool = pl.load_images(images, size=32)
    wanted = [(NULL, rep) for rep in range(nulls)] + [(s, rep) for rep in range(reps) for s in EXPECTED]
    rows = grow(out, ("scenario", "rep"), {job: (pool, *job) for job in wanted}, audited)
    print(summary(rows).to_string())


if __name__ == "__main__":
    typer.run(main)
