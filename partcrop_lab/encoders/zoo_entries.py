"""How every encoder of the zoo is made: one line each, by settings that benchmarks/memory.py found on other images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from partcrop_lab.images import ImageSet, MembershipSplit, load_images, member_split

PROBE = {"source": "partshapes", "n": 2000, "seed": 10_000}
"""Labelled images of which the first half trains the probes of the cards and the second half tests them; also the
public images of the pairs."""


@dataclass(frozen=True)
class ZooEntry:
    """How one encoder of the zoo is made.

    Attributes:
        recipe: its name.
        settings: of the recipe, where they are not its defaults; "epochs" is T.
        attack: what its card is audited with, as `partcrop-lab compare` takes it; chosen before, on other encoders.
        members: images trained on, N.
        nonmembers: images of the same pool that it never sees.
        pool: keywords of `load_images` that are not those of `POOL`.
        seed: of the split and of the training.
        keep: epochs whose encoder joins the zoo too, mid-schedule: NAME-T100 beside NAME. (Other sizes N are entries
            of their own, since their splits differ.)
        along: epochs that benchmarks/growth.py audits too, but which do not join the zoo.
        pair: "a", or "b" for the twin that is trained on as many other images of the same pool, or None. Neither
            sees the non-members of "b", the set C, nor the public images.
        projector: whether it keeps its projector.
    """

    recipe: str
    settings: dict[str, Any]
    attack: str = "partcrop"
    members: int = 300
    nonmembers: int = 500
    pool: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    keep: tuple[int, ...] = ()
    along: tuple[int, ...] = ()
    pair: str | None = None
    projector: bool = False

    def split(self) -> MembershipSplit:
        """Members and non-members, drawn before training."""
        return self._split_b if self.pair == "b" else self._split_a

    @cached_property
    def images(self) -> ImageSet:
        """The pool."""
        return load_images(**(POOL | {"n": 3 * self.members + self.nonmembers + 100} | self.pool))

    @cached_property
    def _split_a(self) -> MembershipSplit:
        return member_split(self.images, members=self.members, nonmembers=self.nonmembers, seed=self.seed)

    @cached_property
    def _split_b(self) -> MembershipSplit:
        taken = set(self._split_a.members.names)
        others = self.images.subset([name for name in self.images.names if name not in taken])
        return member_split(others, members=self.members, nonmembers=self.nonmembers, seed=self.seed)

    def about_pair(self) -> dict[str, Any]:
        """What the card of a pair says of its sets: which of the two it is, the public images, and the names of C."""
        correlation = {key: self.pool[key] for key in ("background_correlation",) if key in self.pool}
        return {"set": self.pair, "public": PROBE | correlation, "held_out": self._split_b.nonmembers.names}


POOL = {"source": "partshapes", "size": 64, "seed": 0}

SMALL_VIEWS = {"view_size": 0.5, "batch_size": 50}
"""Views of 32 px: a quarter of the cost; small batches: more steps for it."""

ZOO: dict[str, ZooEntry] = {
    "simclr": ZooEntry(
        "simclr", {"epochs": 1200, **SMALL_VIEWS}, "partcosine", keep=(300, 600), pair="a", projector=True
    ),
}
