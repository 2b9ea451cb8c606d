"""How every encoder of the zoo is made: one line each, by settings that benchmarks/memory.py found on other images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
"""Views of 32 px cost a quarter, and small batches make more steps of them. Crops and colours are the recipes' own."""
GENTLE = {"crop_scale": (0.2, 1.0), "local_crops": 0, "prototypes": 256, "lr": 1e-3}
"""Of DINO's runs in benchmarks/memory.csv, the only ones that remembered more with every epoch."""
NO_VIEWS = {"crop_scale": None, "flip": 0.0}
WIDER = {"embed_dim": 192, "depth": 6, "num_heads": 3}
"""2.7 million parameters, which remember far more of masked images than the 0.8 million of the default backbone."""

FEW = {"members": 100, "seed": 1}
"""A third of the cost. The split of seed 0 was set aside after a BYOL had been audited on it, since pixel statistics
alone tell its members from the others (p = 0.004, as by chance on one split in 250): any audit on it is confounded."""
PAIR = {"pair": "a", "projector": True}

LONG = {"epochs": 1200, **SMALL_VIEWS}
LOCAL = {"local_crops": 2, "local_size": 0.25}
MASKED = {"epochs": 1000, "batch_size": 50, "lr": 1e-3, **NO_VIEWS}


def correlated(entry: ZooEntry, correlation: float) -> ZooEntry:
    """An entry like this one on images whose backgrounds are those of their class so often, and its end alone."""
    return replace(entry, keep=(), pool={"background_correlation": correlation} if correlation else {})


ZOO: dict[str, ZooEntry] = {
    "mae": ZooEntry("mae", MASKED | WIDER, members=200, pool={"n": 1000}, along=(250, 500)),
    "dino": ZooEntry("dino", LONG | GENTLE | {"epochs": 2400}, "partcosine", keep=(600, 1200)),
    "simclr": ZooEntry("simclr", LONG, "partcosine", keep=(300, 600), **PAIR),
    "mocov3": ZooEntry("mocov3", LONG, "partcosine", along=(300, 600)),
    "vicreg": ZooEntry("vicreg", LONG, "partcosine", **PAIR),
    "supervised": ZooEntry("supervised", LONG, "partcosine", pair="a"),
    "byol": ZooEntry("byol", LONG, "partcosine", **FEW),
    "barlowtwins": ZooEntry("barlowtwins", LONG, "partcosine", **FEW),
    "swav": ZooEntry("swav", LONG | LOCAL, "partcosine", **FEW),
    "ibot": ZooEntry("ibot", LONG | LOCAL, "partcosine", **FEW),
    "mocov2": ZooEntry("mocov2", LONG, "partcosine", **FEW),
    "simmim": ZooEntry("simmim", MASKED, **FEW),
    "cae": ZooEntry("cae", MASKED, **FEW),
}
"""Every encoder by its name. `data/zoo` is kept small and holds not all: `partcrop-lab zoo train NAME` makes any."""

for _name in ("simclr", "vicreg", "supervised"):
    _b = replace(ZOO[_name], keep=(), pair="b")
    ZOO |= {f"{_name}-b": _b, f"{_name}-correlated": correlated(ZOO[_name], 0.5)}
    ZOO |= {f"{_name}-correlated-b": correlated(_b, 0.5)}


def sized(entry: ZooEntry, members: int) -> ZooEntry:
    """An entry like this one on another number of images, N, for as many steps: epochs go down as N goes up."""
    share = entry.members / members
    along = sorted({*entry.keep, *entry.along})
    epochs, *along = (round(epoch * share) for epoch in (entry.settings["epochs"], *along))
    changes = {"members": members, "settings": entry.settings | {"epochs": epochs}, "keep": (), "along": tuple(along)}
    seed = FEW["seed"] if members == FEW["members"] else 0
    return replace(entry, **changes, pool={}, seed=seed, pair=None, projector=False)


for _name in ("simclr", "mocov3", "dino", "mae"):
    ZOO[f"{_name}-n1000"] = sized(ZOO[_name], 1000)
