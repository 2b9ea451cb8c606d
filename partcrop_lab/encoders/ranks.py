"""Training by several processes at once, the ranks: how they are started, which rows each takes, what they gather."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightly.utils import dist
from lightning.fabric import Fabric
from lightning.fabric.utilities import rank_zero_only
from torch import Tensor, nn

from partcrop_lab.errors import BadInput


def check_devices(device: torch.device, devices: int, nodes: int) -> None:
    """Refuse numbers of devices and nodes with which no training can start.

    Args:
        device: of which type they are.
        devices: on each node, one process for each.
        nodes: machines.

    Raises:
        ValueError: a number below 1.
        BadInput: more devices than this machine has, several from a notebook, several nodes without a launcher, or
            other numbers than the launcher's.
    """
    for name, number in (("devices", devices), ("nodes", nodes)):
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")
    world, started = devices * nodes, os.environ.get("WORLD_SIZE", "")
    kind, has = {
        "cpu": ("CPU core", os.cpu_count() or 1),
        "cuda": ("CUDA device", torch.cuda.device_count()),
    }.get(device.type, (f"{device.type.upper()} device", 1))
    if devices > has:
        raise BadInput(f"devices is {devices}, but this machine has {has} {kind}{'s' * (has != 1)}; give at most {has}")
    if world > 1 and device.type not in ("cpu", "cuda"):
        raise BadInput(f"nodes is {nodes}, but several nodes train on CUDA or the CPU only; this is {device.type}")
    if world > 1 and hasattr(sys, "ps1"):
        raise BadInput("several devices need a script or a command that each process can run; a notebook trains on one")
    if "LOCAL_RANK" in os.environ and started not in ("", str(world)):
        raise BadInput(
            f"{started} processes were started together, but devices={devices} and nodes={nodes} make {world}; the "
            "launcher and this program need the same numbers"
        )
    if nodes > 1 and not {"MASTER_ADDR", "SLURM_JOB_ID"} & os.environ.keys():  # it would wait for them in vain
        raise BadInput(f"nodes is {nodes}, but nothing has started this program on others; use torchrun or srun")


@contextmanager
def launched(fabric: Fabric) -> Iterator[None]:
    """Within, all ranks are there; they leave together, and where this one fails, those that it started are ended.

    Raises:
        BadInput: SLURM was asked for other numbers of devices or nodes.
    """
    if fabric.world_size == 1:
        yield
        return
    told = logging.root.manager.disable
    logging.disable(logging.INFO)  # Lightning's banner
    try:
        fabric.launch()
    except ValueError as error:
        raise BadInput(f"the processes were not started as asked for: {error}") from error
    finally:
        logging.disable(told)
    children = fabric.strategy.launcher.procs
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of single tokens, whose copy costs nothing
            yield
        fabric.barrier()
    except BaseException:
        waiting, children[:] = children[:], []  # emptied, lest Lightning's observer of them ends this process too
        for child in waiting:
            child.kill()
            child.wait()
        raise


class Parallel(nn.Module):
    """An objective for torch's DDP, with a weight beside it that no loss reaches.

    Not every loss reaches all weights, so DDP has to look for such. (It then also keeps the order in which it adds up
    gradients, without which a resumed run would differ in the last bits.) Where it finds none, it warns.
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.unreached = nn.Parameter(torch.zeros(1))

    def forward(self, *inputs: Any) -> Tensor:
        """The loss of the objective."""
        return self.objective(*inputs)


def is_first(world: int) -> bool:
    """Whether this process, one of so many, is the one that writes and reports; as its launcher has said."""
    return world == 1 or rank_zero_only.rank == 0


def share(rows: Tensor, rank: int, world: int) -> Tensor:
    """The rows of a step that a rank takes, as many as every other; where they do not divide, some are taken again.

    >>> [share(torch.arange(5), rank, world=2).tolist() for rank in range(2)]
    [[0, 2, 4], [1, 3, 0]]
    """
    total = -(-len(rows) // world) * world
    return rows[torch.arange(rank, total, world) % len(rows)]


def of_all(batch: Tensor) -> Tensor:
    """The batches (B, ...) of all ranks in their order, (world * B, ...), with gradients; of one rank, its own."""
    return torch.cat(dist.gather(batch)) if dist.world_size() > 1 else batch
