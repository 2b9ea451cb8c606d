"""How fast an encoder is trained: augmentation against lightly's PIL transforms, a step against its bare products.

``python benchmarks/pretraining.py`` prints two tables:

1. images a second of two SimCLR views by our batched augmentation over lightly's own transform of PIL images with the
   same settings (at least 5 times);
2. a whole epoch of the training loop over bare forward, backward and optimiser steps on ready views, same objective,
   batch and precision (at most 1.1).

Ratios of medians of CPU time in one run on one thread, the two sides timed in turn, so that whatever else the machine
does slows both; all take about two minutes on an idle core.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from lightly.transforms import SimCLRTransform
from measuring import in_turn
from PIL import Image

import partcrop_lab as pl
from partcrop_lab.encoders.augment import Augmentation
from partcrop_lab.encoders.recipes import Objective, make_recipe
from partcrop_lab.encoders.training import _Run

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
OURS = Augmentation(crop_scale=(0.2, 1.0), flip=0.5, jitter=0.8, grey=0.2, **JITTER)
THEIRS = {"cj_bright": 0.4, "cj_contrast": 0.4, "cj_sat": 0.2, "cj_hue": 0.1, "min_scale": 0.2, "gaussian_blur": 0.0}
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def augmentation(size: int, count: int, runs: int) -> tuple[float, float]:
    """Images a second, theirs and ours, from decoded images to normalised batches of two views."""
    images = pl.load_images("partshapes", n=count, size=size).batch(slice(None))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    transform, generator = SimCLRTransform(input_size=size, **THEIRS), torch.Generator().manual_seed(0)

    def theirs() -> torch.Tensor:
        return torch.stack([view for picture in pictures for view in transform(picture)])

    def ours() -> torch.Tensor:
        return (OURS(images, generator, count=2) - MEAN) / STD

    slow, quick = in_turn(theirs, ours, runs, often=8)
    return count / slow, count / quick


def step(recipe: str, size: int, count: int, runs: int) -> tuple[float, float]:
    """CPU seconds of an epoch of one batch: the training loop, and forward, backward and optimiser alone."""
    images = pl.load_images("partshapes", n=count, size=size)
    run = _Run(make_recipe(recipe, batch_size=count, epochs=10**6), images, 0, "cpu", "auto", None)
    run.set_up()
    batch, generator = images.batch(slice(None)), torch.Generator().manual_seed(0)
    objective = ready(run.recipe.objective(size, seed=0).train())
    optimiser = torch.optim.AdamW([each for each in objective.parameters() if each.requires_grad], lr=1e-4)
    mixed = run.precision == "bf16-mixed"

    def bare() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = objective(batch, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return in_turn(run._epoch, bare, runs)


def ready(objective: Objective) -> Objective:
    """The objective with every kind of view it draws drawn once and kept."""
    draw, kept = objective.views, {}

    def views(images: torch.Tensor, generator: torch.Generator, *how: object, **keywords: object) -> torch.Tensor:
        key = repr((how, keywords))
        if key not in kept:
            kept[key] = draw(images, generator, *how, **keywords)
        return kept[key]

    objective.views = views
    return objective


def main(
    runs: Annotated[int, typer.Option(help="Timed calls of each side.")] = 7,
    images: Annotated[int, typer.Option(help="Images of a call, and of a batch.")] = 128,
    recipes: Annotated[str, typer.Option(help="Recipes whose step is timed.")] = "mocov3,dino,mae",
) -> None:
    torch.set_num_threads(1)
    print(f"two views of SimCLR, {images} images, medians of {runs}, images a second:")
    for size in (32, 64):
        theirs, ours = augmentation(size, images, runs)
        print(f"  {size} px   lightly {theirs:6.0f}   ours {ours:6.0f}   {ours / theirs:.1f} times", flush=True)
    print(f"a step of {images} images at 64 px, medians of {runs}, seconds:")
    for recipe in recipes.split(","):
        whole, bare = step(recipe, 64, images, runs)
        print(f"  {recipe:7}  loop {whole:.3f}   bare {bare:.3f}   {whole / bare:.2f} times", flush=True)


if __name__ == "__main__":
    typer.run(main)
