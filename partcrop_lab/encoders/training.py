"""`pretrain`: from images and a recipe to an encoder, on Lightning Fabric; a killed run goes on where it stopped."""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from partcrop_lab import store
from partcrop_lab.devices import default_device, generator, resolve_precision, seed_of
from partcrop_lab.encoders import ranks
from partcrop_lab.encoders.backbone import explicit_attention
from partcrop_lab.encoders.checkpoint import read_weights, rounded, write_state
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.privacy import Privacy, clipped_sum, noise_like, not_separable
from partcrop_lab.encoders.recipes import MaskedObjective, Objective, Recipe, make_recipe
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
    decoder: bool = False,
    devices: int = 1,
    nodes: int = 1,
    stop: int | None = None,
    privacy: Privacy | None = None,
    **overrides: Any,
) -> Encoder:
    """Train an encoder on the members of a split, or on a whole image set.

    Every epoch draws its order, views and masks from a generator of its own, made of the seed and the epoch; so a
    run that was killed and started again with the same `out` has the same losses as one that was not.

    With several devices, a process trains on each. torchrun or SLURM has started them; else this one starts the others
    by running its own command again, so call it from the shell or a script, not from a notebook; what else a script
    does, each of them does. They share the images of a step out equally, and losses that compare images gather all.
    Batch norms see the whole step on CUDA, but on the CPU, where torch has none that could, their own process's share.
    The first process alone writes. Each draws views of its own, so a run resumes with as many processes as it had.

    Args:
        recipe: the name of one of `RECIPES`.
        data: a split, of which only the members are touched and whose digest the encoder carries, or images.
        epochs: passes over the images, T; the recipe's own where None.
        seed: of weights, order, views and masks.
        out: folder for `encoder.safetensors`, `log.jsonl` (epoch, loss, lr, seconds) and the state to resume from.
        checkpoint_every: epochs between two states; None: twenty in all.
        device: "cpu", "cuda", "mps"; the best there is where None.
        precision: "fp32", "bf16" or "auto", which is fp32 (see `resolve_precision`).
        progress: show a bar with the time left.
        keep: epochs after which the encoder is also written to `out`, as encoder-000100.safetensors, to study early
            stopping. They are mid-schedule: the learning rate still follows the cosine of all `epochs`, so they are not
            what a run of so few epochs would end with. Their card has that epoch as T and the total as "planned".
        projector: the encoders carry the recipe's projector too, for `Encoder.projections`.
        decoder: masked-image models carry all they were trained as, for `Encoder.masked_losses`.
        devices: GPUs of each node to train on, or on the CPU processes; `batch_size` is that of all together.
        stop: the epoch after which it ends, mid-schedule as those of `keep`; the same call without it goes on.
        privacy: train by DP-SGD, on one device; what it guarantees stands on the card.
        nodes: machines, which share the folder `out`; the command is started on each, e.g. by torchrun or srun.
        overrides: settings of the recipe (lr=, crop_scale=, depth=, ...).

    Returns:
        The encoder, with its weights as the saved file holds them (matrices in float16).

    Raises:
        ValueError: an unknown recipe or setting, epochs to keep that the run does not have, a projector or a decoder
            asked for of a recipe without one, less than one device, or privacy on several.
        BadInput: an `out` that cannot be written or holds another run, images without labels that need them, more
            devices than there are, or a loss or a gradient that is no longer finite, which a lower lr= may cure.
    """
    if epochs is not None:
        overrides["epochs"] = epochs
    images, split = (data.members, data) if isinstance(data, MembershipSplit) else (data, None)
    settings = make_recipe(recipe, **overrides).for_images(images)
    run = _Run(settings, images, seed, device, precision, None if out is None else Path(out), devices, nodes, privacy)
    last = settings.epochs if stop is None else stop
    if not 1 <= last <= settings.epochs:
        raise ValueError(f"stop is {stop}; it must be an epoch from 1 to {settings.epochs}")
    _check_kept(keep, run)
    if projector and run.objective.projector is None:
        raise ValueError(f"recipe {recipe} has no projector; leave projector= out")
    if decoder and not isinstance(run.objective, MaskedObjective):
        raise ValueError(f"recipe {recipe} has no decoder, for it masks no patches; leave decoder= out")
    heads = {"projector": projector, "decoder": decoder}

    def keep_encoder() -> None:
        if run.first and len(run.log) in keep:
            _encoder(run, split, precision, **heads).save(kept_path(out, len(run.log)))

    with ranks.launched(run.fabric):
        run.set_up()
        run.train(checkpoint_every or math.ceil(settings.epochs / 20), progress, keep_encoder, last)
        encoder = _encoder(run, split, precision, **heads)
        if run.first and out is not None:
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
        self,
        recipe: Recipe,
        images: ImageSet,
        seed: int,
        device: str | None,
        precision: str,
        out: Path | None,
        devices: int = 1,
        nodes: int = 1,
        privacy: Privacy | None = None,
    ) -> None:
        """What one process can say and refuse by itself, before there are others; `set_up` follows."""
        self.recipe, self.images, self.seed, self.out = recipe, images, seed, out
        self.devices, self.nodes, self.world = devices, nodes, devices * nodes
        self.privacy, self.key = privacy, secrets.randbits(63) if privacy and privacy.secret else 0
        if privacy and self.world > 1:
            raise ValueError(f"privacy needs one device; found devices={devices}, nodes={nodes}")
        self.device = torch.device(device) if device else default_device()
        ranks.check_devices(self.device, devices, nodes)
        mixed = resolve_precision(precision) == torch.bfloat16
        self.precision = "bf16-mixed" if mixed else "32-true"
        how = {"plugins": [MixedPrecision(self.precision, self.device.type)]} if mixed else {}
        if self.world > 1:
            how |= {"strategy": "ddp_find_unused_parameters_true", "num_nodes": nodes}
        self.fabric = Fabric(accelerator=self.device.type, devices=devices, **how)
        self.objective = recipe.objective(images.size, seed)
        if privacy or (mixed and self.device.type == "cpu"):
            explicit_attention(self.objective)
        self.separable = privacy is not None and not_separable(self.objective) is None
        self.batches = math.ceil(len(images) / recipe.batch_size)
        self.log: list[dict[str, float]] = []
        self._state = self._read_state()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and shows."""
        return self.fabric.is_global_zero

    def set_up(self) -> None:
        """Bring weights, optimiser and images to the device, as far as they are in `out`, once all ranks are there."""
        if self.world > 1:
            self.device = self.fabric.device
            self._agree()
            if self.device.type == "cuda":
                self.objective = convert_sync_batchnorm(self.objective)
        self.optimizer = torch.optim.AdamW(_groups(self.objective, self.recipe.weight_decay), lr=self.recipe.lr)
        module = self.objective if self.world == 1 else ranks.Parallel(self.objective)
        self.step_objective, self.step_optimizer = self.fabric.setup(module, self.optimizer)
        small = len(self.images) * 3 * self.images.size**2 <= HELD_BYTES
        self.pixels = self.images.batch(slice(None)).to(self.device) if small else None
        labels = self.images.labels
        self.labels = torch.as_tensor(labels, device=self.device) if (labels >= 0).any() else None
        if self._state is not None:
            self.objective.load_state_dict(self._state["objective"])
            self.optimizer.load_state_dict(self._state["optimizer"])
            self.key = self._state.get("key", self.key)
            self._state = None

    def _agree(self) -> None:
        """Refuse ranks that are about different things, as those of nodes without a common folder may be."""
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, (self._identity, len(self.log)))
        if len(set(found)) > 1:
            raise BadInput(
                f"the {self.world} processes found different images, settings or states of training; all nodes need "
                "the same images and one folder out= that they share"
            )

    def train(self, checkpoint_every: int, progress: bool, after_epoch: Callable[[], None], last: int) -> None:
        """The epochs up to `last` that are still to do, with states and log on the way."""
        how = {"total": last, "initial": len(self.log), "shown": progress and self.first}
        with bar(desc=f"pretrain {self.recipe.name}", unit="epoch", **how) as done, torch.random.fork_rng(devices=[]):
            while len(self.log) < last:
                self._epoch()
                after_epoch()  # before the state, so that a run killed in between does it again
                done.update()
                done.set_postfix(loss=f"{self.log[-1]['loss']:.4f}", refresh=False)
                due = len(self.log) % checkpoint_every == 0 or len(self.log) == last
                if self.first and self.out and due:
                    self._save()
        for buffer in self.objective.buffers() if self.world > 1 else ():  # else batch norms' means differ by a step
            torch.distributed.broadcast(buffer, src=0)

    def _epoch(self) -> None:
        start, epoch = time.perf_counter(), len(self.log)
        source = generator("pretrain", self.seed, epoch)
        order = torch.randperm(len(self.images), generator=source)  # the same on all ranks, what follows is not
        own = (self.fabric.global_rank,) if self.world > 1 else (self.key,) if self.key else ()
        source = generator("pretrain", self.seed, epoch, *own) if own else source
        torch.manual_seed(seed_of("layers", self.seed, epoch, *own))  # for dropout and drop path
        self.objective.train()
        losses = []
        steps = self._drawn(source) if self.separable else order.tensor_split(self.batches)
        for number, rows in enumerate(steps):
            done = (epoch + number / self.batches) / self.recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr * rate(done, self.recipe.warmup)
            mine = ranks.share(rows, self.fabric.global_rank, self.world)
            losses.append(self._step(mine, source, done) * len(rows))
        loss = float(torch.stack(losses).sum()) / len(self.images)
        lr = self.optimizer.param_groups[0]["lr"]
        self.log.append({"epoch": epoch + 1, "loss": loss, "lr": lr, "seconds": time.perf_counter() - start})

    def _drawn(self, source: torch.Generator) -> Iterator[Tensor]:
        """As many steps as batches, each image in each with the same chance (Poisson sampling)."""
        for _ in range(self.batches):
            yield (torch.rand(len(self.images), generator=source) * self.batches < 1).nonzero()[:, 0]

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images and, where there are any, labels."""
        here = rows.to(self.device)
        images = self.images.batch(rows).to(self.device) if self.pixels is None else self.pixels[here]
        return images, None if self.labels is None else self.labels[here]

    def _step(self, rows: Tensor, source: torch.Generator, done: float) -> Tensor:
        """Train on this rank's rows; the mean loss of all ranks, a scalar without gradient."""
        if self.privacy:
            return self._private_step(rows, source, done)
        images, labels = self._batch(rows)
        loss = self.step_objective(images, source, done, labels)
        self.step_optimizer.zero_grad()
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.step_objective, self.step_optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False
        )
        loss = self.fabric.all_reduce(loss.detach())
        self._descend(loss, norm, done)
        return loss

    def _private_step(self, rows: Tensor, source: torch.Generator, done: float) -> Tensor:
        """A step by clipped gradients with noise; the mean loss of the rows, 0 where none was drawn."""
        how, expected = self.privacy, len(self.images) / self.batches
        images, labels = self._batch(rows)
        trained = [value for value in self.objective.parameters() if value.requires_grad]
        if self.separable:
            drawn = self.objective.drawn(images, source, labels)
            with self.fabric.autocast():
                total, losses = clipped_sum(self.objective, drawn, how.clip)
            loss = losses.sum() / max(1, len(rows))
        else:
            loss = self.step_objective(images, source, done, labels)
            self.step_optimizer.zero_grad()
            self.fabric.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(trained, how.clip, error_if_nonfinite=False)
            total = [expected * (torch.zeros_like(one) if one.grad is None else one.grad) for one in trained]
            loss = loss.detach() + 0 * norm  # not finite where the gradient is not
        for value, one, noise in zip(trained, total, noise_like(total, how.noise * how.clip, source), strict=True):
            value.grad = (one + noise) / expected
        self._descend(loss, loss.new_zeros(()), done)
        return loss

    def _descend(self, loss: Tensor, norm: Tensor, done: float) -> None:
        """Step along the gradient, if it is finite."""
        if not torch.isfinite(loss + norm):  # before the step, so that no weight and no state is spoilt
            raise BadInput(
                f"the loss or its gradient is no longer finite in epoch {len(self.log) + 1} of {self.recipe.epochs} "
                f"(recipe {self.recipe.name}, lr {self.recipe.lr:g}); lower lr= or raise warmup="
            )
        self.step_optimizer.step()
        self.objective.after_step(done)

    @property
    def _identity(self) -> str:
        """What must not differ between a run and its continuation."""
        more = [self.world] if self.world > 1 else [asdict(self.privacy)] if self.privacy else []
        settings = asdict(self.recipe)
        return store.digest(self.recipe.name, settings, self.images.digest, self.seed, self.precision, *more)

    def _save(self) -> None:
        state = {"identity": self._identity, "epoch": len(self.log)}
        state |= {"objective": self.objective.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"key": self.key} if self.key else {}
        with store.atomic(self.out / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.log))
        write_state(self.out / "state.pt", state)

    def _read_state(self) -> dict[str, Any] | None:
        """The state in `out`, where there is one, and the log up to it."""
        if self.out is None or not (self.out / "state.pt").exists():
            return None
        state = read_weights(self.out / "state.pt")
        if state["identity"] != self._identity:
            raise BadInput(
                f"{self.out} holds another run (other images, seed, settings, precision or number of processes); "
                "choose another out="
            )
        lines = (self.out / "log.jsonl").read_text().splitlines()
        self.log = [json.loads(line) for line in lines[: state["epoch"]]]
        return state


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


def served_parts(objective: Objective, projector: bool) -> tuple[nn.Module, nn.Module | None]:
    """A copy of an objective's backbone, and of its projector where asked for, as a saved file would hold them."""
    recipe = objective.recipe
    model = recipe.architecture(objective.image_size).build()
    model.load_state_dict(rounded(objective.backbone.state_dict()))
    head = recipe.head(model.num_features) if projector else None
    if head is not None:
        head.load_state_dict(rounded(objective.projector.state_dict()))
    return model, head


def _encoder(run: _Run, split: MembershipSplit | None, precision: str, projector: bool, decoder: bool) -> Encoder:
    recipe = run.recipe
    architecture = recipe.architecture(run.images.size)
    model, head = served_parts(run.objective, projector)
    around = recipe.objective(run.images.size, run.seed) if decoder else None
    if around is not None:
        around.load_state_dict(rounded(run.objective.state_dict()))
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
    if run.privacy:
        steps = run.batches * len(run.log)
        epsilon, told = run.privacy.spent(run.objective, run.batches, steps)
        card["privacy"] = {**asdict(run.privacy), "steps": steps, "epsilon": epsilon, "guarantee": told}
    if run.world > 1:
        card |= {"devices": run.devices, "nodes": run.nodes}
    if split is not None:
        card |= {"split_digest": split.digest, "split": split.record()}
    name = f"{recipe.name} N={len(run.images)} T={len(run.log)} seed={run.seed}"
    how = {"image_size": run.images.size, "mean": recipe.mean, "std": recipe.std, "precision": precision}
    how |= {"projector": head, "decoder": around}
    return Encoder(model, name=name, architecture=architecture, card=card, device=run.device, **how)


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
