"""How hard partshapes is: pixels' nearest neighbour, a small supervised net, and how fast it is drawn.

Run with ``python benchmarks/partshapes.py``; one core needs under four minutes.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from partcrop_lab.images.partshapes import CLASSES, partshapes

TRAIN, TEST = 8000, 2000
NEIGHBOURS_TRAIN, NEIGHBOURS_TEST = 2000, 500
EPOCHS, BATCH, PEAK_RATE = 14, 64, 0.004
SEED = 0


def nearest_neighbour(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy of the label of the nearest training image, by Euclidean distance between pixels."""
    a = torch.from_numpy(train.reshape(len(train), -1)).float()
    b = torch.from_numpy(test.reshape(len(test), -1)).float()
    nearest = torch.cdist(b, a).argmin(1).numpy()
    return float((labels[nearest] == truth).mean())


def small_net() -> nn.Sequential:
    """Five convolutions, 132,000 weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU()]
    for before, after, stride in ((16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 96, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 16, len(CLASSES)))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored half of the time and shifted by up to four pixels."""
    if torch.rand((), generator=generator) < 0.5:
        images = images.flip(-1)
    dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
    side = images.shape[-1]
    return functional.pad(images, (4, 4, 4, 4), mode="replicate")[..., dy : dy + side, dx : dx + side]


def supervised(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Held-out accuracy of the small net after `EPOCHS` epochs of AdamW under a one-cycle rate."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    x, y = (torch.from_numpy(train).float() - 128) / 64, torch.from_numpy(labels)
    net = small_net()
    optimiser = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=0.02)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    progress = tqdm(total=steps, desc="small net", leave=False)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x), generator=generator).split(BATCH)[: len(x) // BATCH]:
            loss = functional.cross_entropy(net(augmented(x[index], generator)), y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            progress.update()
    net.eval()
    with torch.no_grad():
        guess = torch.cat([net((torch.from_numpy(part).float() - 128) / 64).argmax(1) for part in np.split(test, 10)])
    return float((guess.numpy() == truth).mean())


def main() -> None:
    """Measure and print the table."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    drawn = partshapes(TRAIN + TEST, seed=SEED)
    rate = (TRAIN + TEST) / (time.perf_counter() - start)
    images, labels = drawn.images, drawn.labels
    near = slice(TRAIN, TRAIN + NEIGHBOURS_TEST)
    neighbours = slice(0, NEIGHBOURS_TRAIN)
    knn = nearest_neighbour(images[neighbours], labels[neighbours], images[near], labels[near])
    net = supervised(images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])
    print(f"{'measured at 64 px':<34}{'value':>10}  n")
    print(f"{'1-nearest neighbour on pixels':<34}{knn:>10.1%}  {NEIGHBOURS_TRAIN} train, {NEIGHBOURS_TEST} test")
    print(f"{'small supervised net':<34}{net:>10.1%}  {TRAIN} train, {TEST} test, {EPOCHS} epochs")
    print(f"{'images drawn a second, one core':<34}{rate:>10.0f}  {TRAIN + TEST}")


if __name__ == "__main__":
    main()
