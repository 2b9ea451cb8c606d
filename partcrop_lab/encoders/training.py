"""`pretrain`: from images and a recipe to an encoder, on Lightning Fabric; a killed run goes on where it stopped."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor

from partcrop_lab import store
from partcrop_lab.devices import default_device, generator, resolve_precision, seed_of
from partcrop_lab.encoders.backbone import explicit_attention
from partcrop_lab.encoders.checkpoint import read_weights, rounded
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.recipes import Objective, Recipe, make_recipe
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, MembershipSplit
from partcrop_lab.progress import bar

HELD_BYTES = 2**30
"""Sets up to this size are held on the device as one tensor; larger ones are read from disk batch by batch."""


def pretrain(
    recipe: str,
    data: MembershipSplit | ImageSet,
    epochs: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    checkpoint_every: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    keep: Collection[int] = (),
    projector: bool = False,
    **overrides: Any,
) -> Encoder:
    """Train an encoder on the members of a split, or on a whole image set.

    Every epoch draws its order, views and masks from a generator of its own, made of the seed and the epoch; so a
    run that was killed and started again with the same `out` has the same losses as one that was not.

    Args:
        recipe: the name of one of `RECIPES`.
        data: a split, of which only the members are touched and whose digest the encoder carries, or images.
        epochs: passes over the images, T; the recipe's own where None.
        seed: of weights, order, views and masks.
        out: folder for `encoder.safetensors`, `log.jsonl` (epoch, loss, lr, seconds) and the state to resume from.
        checkpoint_every: epochs between two states; None: twenty in all.
        device: "cpu", "cuda", "mps"; the best there is where None.
        precision: "fp32", "bf16" or "auto": bf16 where the chip has it.
        progress: show a bar with the time left.
        keep: epochs after which the encoder is also written to `out`, as encoder-000100.safetensors, to study early
            stopping. They are mid-schedule: the learning rate still follows the cosine of all `epochs`, so they are not
            what a run of so few epochs would end with. Their card has that epoch as T and the total as "planned".
        projector: the encoders carry the recipe's projector too, for `Encoder.projections`.
        overrides: settings of the recipe (lr=, crop_scale=, depth=, ...).

    Returns:
        The encoder, with its weights as the saved file holds them (matrices in float16).

    Raises:
        ValueError: an unknown recipe or setting, epochs to keep that the run does not have, or a projector asked for
            of a recipe without one.
        BadInput: an `out` that cannot be written or holds another run, images without labels that need them, or a loss
            or a gradient that is no longer finite, which a lower lr= may cure.
    """
    if epochs is not None:
        overrides["epochs"] = epochs
    images, split = (data.members, data) if isinstance(data, MembershipSplit) else (data, None)
    settings = make_recipe(recipe, **overrides).for_images(images)
    run = _Run(settings, images, seed, device, precision, None if out is None else Path(out))
    _check_kept(keep, run)
    if projector and run.objective.projector is None:
        raise ValueError(f"recipe {recipe} has no projector; leave projector= out")

    def keep_encoder() -> None:
        if len(run.log) in keep:
            _encoder(run, split, precision, projector).save(kept_path(out, len(run.log)))

    run.train(checkpoint_every or math.ceil(settings.epochs / 20), progress, keep_encoder)
    encoder = _encoder(run, split, precision, projector)
    if out is not None:
        encoder.save(Path(out) / "encoder.safetensors")
    return encoder


def kept_path(out: str | Path, epoch: int) -> Path:
    """Where `pretrain` writes the encoder of an epoch to keep.

    >>> kept_path("run", 100).name
    'encoder-000100.safetensors'
    """
    return Path(out) / f"encoder-{epoch:06}.safetensors"


def _check_kept(keep: Collection[int], run: _Run) -> None:
    for epoch in keep:
        if not 1 <= epoch <= run.recipe.epochs:
            raise ValueError(f"keep= names epoch {epoch}; it must be one from 1 to {run.recipe.epochs}")
        if run.out is None:
            raise ValueError("keep= needs out=, the folder for the encoders along the way")
        if epoch <= len(run.log) and not kept_path(run.out, epoch).exists():
            raise BadInput(
                f"{run.out} is already at epoch {len(run.log)} and did not keep epoch {epoch}; choose another out= to "
                "train from the start"
            )


class _Run:
    """One training run: the objective, its optimiser and how far they are."""

    def __init__(
        self, recipe: Recipe, images: ImageSet, seed: int, device: str | None, precision: str, out: Path | None
    ) -> None:
        self.recipe, self.images, self.seed, self.out = recipe, images, seed, out
        self.device = torch.device(device) if device else default_device()
        mixed = resolve_precision(precision, self.device) == torch.bfloat16
        self.precision = "bf16-mixed" if mixed else "32-true"
        plugins = [MixedPrecision(self.precision, self.device.type)] if mixed else None
        self.fabric = Fabric(accelerator=self.device.type, devices=1, plugins=plugins)
        self.objective = recipe.objective(images.size, seed)
        if mixed and self.device.type == "cpu":
            explicit_attention(self.objective)
        self.optimizer = torch.optim.AdamW(_groups(self.objective, recipe.weight_decay), lr=recipe.lr)
        self.step_objective, self.step_optimizer = self.fabric.setup(self.objective, self.optimizer)
        self.batches = math.ceil(len(images) / recipe.batch_size)
        small = len(images) * 3 * images.size**2 <= HELD_BYTES
        self.pixels = images.batch(slice(None)).to(self.device) if small else None
        self.labels = torch.as_tensor(images.labels, device=self.device) if (images.labels >= 0).any() else None
        self.log: list[dict[str, float]] = []
        self._resume()

    def train(self, checkpoint_every: int, progress: bool, after_epoch: Callable[[], None]) -> None:
        """All epochs that are still to do, with states and log on the way."""
        how = {"total": self.recipe.epochs, "initial": len(self.log), "unit": "epoch", "shown": progress}
        with bar(desc=f"pretrain {self.recipe.name}", **how) as done, torch.random.fork_rng(devices=[]):
            while len(self.log) < self.recipe.epochs:
                self._epoch()
                after_epoch()  # before the state, so that a run killed in between does it again
                done.update()
                done.set_postfix(loss=f"{self.log[-1]['loss']:.4f}", refresh=False)
                if self.out and (len(self.log) % checkpoint_every == 0 or len(self.log) == self.recipe.epochs):
                    self._save()

    def _epoch(self) -> None:
        start, epoch = time.perf_counter(), len(self.log)
        source = generator("pretrain", self.seed, epoch)
        torch.manual_seed(seed_of("layers", self.seed, epoch))  # for dropout and drop path
        order = torch.randperm(len(self.images), generator=source)
        self.objective.train()
        losses = []
        for number, rows in enumerate(order.tensor_split(self.batches)):
            done = (epoch + number / self.batches) / self.recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr * rate(done, self.recipe.warmup)
            losses.append(self._step(rows, source, done) * len(rows))
        loss = float(torch.stack(losses).sum()) / len(self.images)
        lr = self.optimizer.param_groups[0]["lr"]
        self.log.append({"epoch": epoch + 1, "loss": loss, "lr": lr, "seconds": time.perf_counter() - start})

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images and, where there are any, labels."""
        here = rows.to(self.device)
        images = self.images.batch(rows).to(self.device) if self.pixels is None else self.pixels[here]
        return images, None if self.labels is None else self.labels[here]

    def _step(self, rows: Tensor, source: torch.Generator, done: float) -> Tensor:
        images, labels = self._batch(rows)
        loss = self.step_objective(images, source, done, labels)
        self.step_optimizer.zero_grad()
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.step_objective, self.step_optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False
        )
        if not torch.isfinite(loss + norm):  # before the step, so that no weight and no state is spoilt
            raise BadInput(
                f"the loss or its gradient is no longer finite in epoch {len(self.log) + 1} of {self.recipe.epochs} "
                f"(recipe {self.recipe.name}, lr {self.recipe.lr:g}); lower lr= or raise warmup="
            )
        self.step_optimizer.step()
        self.objective.after_step(done)
        return loss.detach()

    @property
    def _identity(self) -> str:
        """What must not differ between a run and its continuation."""
        return store.digest(self.recipe.name, asdict(self.recipe), self.images.digest, self.seed, self.precision)

    def _save(self) -> None:
        state = {"identity": self._identity, "epoch": len(self.log)}
        state |= {"objective": self.objective.state_dict(), "optimizer": self.optimizer.state_dict()}
        with store.atomic(self.out / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.log))
        with store.atomic(self.out / "state.pt") as temporary:
            torch.save(state, buffer := io.BytesIO())  # torch's own writer hides the reason when a disk is full
            temporary.write_bytes(buffer.getbuffer())

    def _resume(self) -> None:
        """Take up the state in `out`, where there is one."""
        if self.out is None or not (self.out / "state.pt").exists():
            return
        state = read_weights(self.out / "state.pt")
        if state["identity"] != self._identity:
            raise BadInput(
                f"{self.out} holds another run (other images, seed, settings or precision); choose another out="
            )
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        lines = (self.out / "log.jsonl").read_text().splitlines()
        self.log = [json.loads(line) for line in lines[: state["epoch"]]]


def rate(done: float, warmup: float) -> float:
    """Learning rate as a share of its peak: linear up to `warmup` (share of the training), then a cosine to 0.

    >>> rate(0.0, 0.1), rate(0.1, 0.1), rate(1.0, 0.1)
    (0.0, 1.0, 0.0)
    """
    if done < warmup:
        return done / warmup
    return (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2


def _groups(objective: Objective, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, norms, tokens and position embeddings without."""
    trained = [(name, value) for name, value in objective.named_parameters() if value.requires_grad]
    plain = {name for name, value in trained if value.ndim < 2 or name.endswith(("_token", "pos_embed"))}
    return [
        {"params": [value for name, value in trained if name not in plain], "weight_decay": weight_decay},
        {"params": [value for name, value in trained if name in plain], "weight_decay": 0.0},
    ]


def _encoder(run: _Run, split: MembershipSplit | None, precision: str, projector: bool) -> Encoder:
    recipe = run.recipe
    architecture = recipe.architecture(run.images.size)
    model = architecture.build()
    model.load_state_dict(rounded(run.objective.backbone.state_dict()))
    head = recipe.head(model.num_features) if projector else None
    if head is not None:
        head.load_state_dict(rounded(run.objective.projector.state_dict()))
    card = {
        "recipe": recipe.name,
        "settings": asdict(recipe),
        "N": len(run.images),
        "T": len(run.log),
        "planned": recipe.epochs,
        "seed": run.seed,
        "precision": run.precision,
        "final_loss": run.log[-1]["loss"] if run.log else None,
        "minutes": round(sum(line["seconds"] for line in run.log) / 60, 2),
        "machine": machine(run.device),
        "versions": {name: metadata.version(name) for name in ("torch", "timm", "lightly", "lightning")},
        "images_digest": run.images.digest,
    }
    if split is not None:
        card |= {"split_digest": split.digest, "split": split.record()}
    name = f"{recipe.name} N={len(run.images)} T={len(run.log)} seed={run.seed}"
    how = {"image_size": run.images.size, "mean": recipe.mean, "std": recipe.std, "precision": precision}
    return Encoder(model, name=name, architecture=architecture, card=card, device=run.device, projector=head, **how)


def machine(device: torch.device) -> str:
    """The kind of chip and how many threads were used; no names of hosts or users."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores"
