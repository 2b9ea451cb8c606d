"""Which images an encoder was trained on and which it never saw: drawn here, or given."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partcrop_lab import store
from partcrop_lab.devices import generator
from partcrop_lab.errors import BadInput
from partcrop_lab.images.duplicates import duplicate_groups
from partcrop_lab.images.imageset import MEMORY, ImageSet
from partcrop_lab.images.sources import load_again
from partcrop_lab.schemas import Split, checked

FORMAT = "partcrop-lab split 1"


@dataclass(frozen=True, eq=False)
class MembershipSplit:
    """Members and non-members of one pool, disjoint, before or after an encoder is trained on the members.

    Args:
        members: images that an encoder is, or was, trained on.
        nonmembers: images that it never sees, of the same side.
        origin: "drawn" by `member_split` from one set, or "given" as two sets.
        seed: of the drawing; None for a given split.
        dropped: how many duplicates were dropped.
        independent: whether a fair coin of its own decided each image's membership, as one-run bounds on epsilon need.

    Raises:
        BadInput: an empty side, or sides of unequal image size.
    """

    members: ImageSet
    nonmembers: ImageSet
    origin: str
    seed: int | None = None
    dropped: int = 0
    independent: bool = False

    def __post_init__(self) -> None:
        if not len(self.members) or not len(self.nonmembers):
            raise BadInput(
                f"a split needs images on both sides; found {len(self.members)} members and "
                f"{len(self.nonmembers)} non-members"
            )
        if self.members.size != self.nonmembers.size:
            raise BadInput(
                f"members have {self.members.size} px a side and non-members {self.nonmembers.size}; a difference in "
                "size alone would tell them apart, so load both with the same size="
            )

    def __repr__(self) -> str:
        return (
            f"MembershipSplit({len(self.members)} members + {len(self.nonmembers)} non-members, {self.origin}, "
            f"digest {self.digest[:8]})"
        )

    @cached_property
    def images(self) -> ImageSet:
        """Members, then non-members; where they share a name, "members/" and "nonmembers/" go before all names."""
        shared = set(self.members.names) & set(self.nonmembers.names)
        return ImageSet.concat((self.members, self.nonmembers), ("members/", "nonmembers/") if shared else None)

    @cached_property
    def member(self) -> np.ndarray:
        """Whether each of `images` is a member, (n,) bool."""
        return np.arange(len(self.members) + len(self.nonmembers)) < len(self.members)

    @cached_property
    def digest(self) -> str:
        """A sha256 of which pixels are members and which are not, whatever their names, order or source."""
        return store.digest(sorted(self.members.hashes), sorted(self.nonmembers.hashes))

    def halves(self, seed: int = 0, known: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `images` of the known part, which trains an attacker, and of the unknown, which is attacked.

        Args:
            seed: of the random choice.
            known: share of the members, and of the non-members, that is known, in (0, 1).

        Returns:
            Two ascending int64 arrays, disjoint, together all images. METHODS section 2.

        Raises:
            ValueError: `known` outside (0, 1).
        """
        if not 0 < known < 1:
            raise ValueError(f"known is {known}; it must lie between 0 and 1")
        chosen = np.zeros(len(self.member), dtype=bool)
        for side in (True, False):
            rows = np.flatnonzero(self.member == side)
            order = torch.randperm(len(rows), generator=generator(seed, "halves", side)).numpy()
            chosen[rows[order[: int(known * len(rows))]]] = True
        return np.flatnonzero(chosen), np.flatnonzero(~chosen)

    def record(self) -> dict[str, Any]:
        """What `from_record` needs to make the split again, JSON-able: sources and names, no pixels."""
        sides = {"members": self.members, "nonmembers": self.nonmembers}
        return {
            "format": FORMAT,
            "origin": self.origin,
            "seed": self.seed,
            "dropped": self.dropped,
            "independent": self.independent,
            "digest": self.digest,
            **{side: {"load": images.source, "names": list(images.names)} for side, images in sides.items()},
        }

    @classmethod
    def from_record(cls, record: dict[str, Any], folder: str | Path = ".") -> MembershipSplit:
        """Load the images that `record` names and check that they are the same.

        Args:
            record: as `record()` gives it.
            folder: where relative paths are looked for when they do not lead anywhere from the current folder.

        Raises:
            BadInput: not such a record, images that are not there, or pixels that differ.
        """
        checked(Split, record, "not the record of a split")
        sides = [(record[side]["load"], record[side]["names"]) for side in ("members", "nonmembers")]
        about = [record[key] for key in ("origin", "seed", "dropped", "independent")]
        expected = record["digest"]
        split = cls(*(load_again(source, names, folder) for source, names in sides), *about)
        if split.digest != expected:
            raise BadInput(
                f"the images of this split have changed: their digest is {split.digest[:12]}, the record says "
                f"{expected[:12]}; restore the original images or draw a new split"
            )
        return split

    def check_stored(self) -> None:
        """Refuse a split whose record could not be loaded again.

        Raises:
            BadInput: images handed over as arrays.
        """
        for images in (self.members, self.nonmembers):
            if images.source["source"] == MEMORY:
                raise BadInput(
                    "this split's images were handed over as arrays and could not be loaded again; "
                    "write them to a folder and load them with load_images first"
                )

    def save(self, path: str | Path) -> None:
        """Write `record()` as a JSON file.

        Raises:
            BadInput: images handed over as arrays, which could not be loaded again, or a folder that cannot be
                written.
        """
        self.check_stored()
        store.write_json(path, self.record())

    @classmethod
    def load(cls, path: str | Path) -> MembershipSplit:
        """Read a file that `save` wrote; its image paths may be relative to the current or to the file's folder.

        Raises:
            BadInput: no such file, not a split, images that are not there, or pixels that differ.
        """
        try:
            return cls.from_record(store.read_json(path), Path(path).parent)
        except ValueError as error:  # also of a source that has no such option, or of drawings out of range
            told = str(error).removeprefix(f"{path}: ")
            raise BadInput(f"{path}: {told}") from error


def member_split(
    images: ImageSet,
    other: ImageSet | None = None,
    *,
    members: int = 500,
    nonmembers: int | None = None,
    seed: int = 0,
    drop_duplicates: bool = False,
    independent: bool = False,
) -> MembershipSplit:
    """Draw members and non-members from one set, or take two sets whose membership is known (METHODS 3.1 to 3.3).

    A drawn split first drops duplicates, exact and near, keeping one image of each group. A given split is refused
    where an image of one side duplicates one of the other, unless `drop_duplicates`: an image that was trained on
    is a member whoever else holds a copy, so the non-members that duplicate a member are dropped, and of
    duplicates within a side one is kept.

    Args:
        images: the pool to draw from; with `other`, the members.
        other: the non-members of a given split.
        members: how many members to draw.
        nonmembers: how many non-members to draw; default as many.
        seed: of the drawing.
        drop_duplicates: for a given split.
        independent: draw as many images in all, and let a fair coin decide the membership of each; only then can an
            audit bound epsilon from below (METHODS 3.7).

    Raises:
        BadInput: too few images, sides of unequal image size, or duplicates across a given split.

    >>> from partcrop_lab.images import load_images
    >>> pool = load_images("partshapes", n=40, size=32)
    >>> split = member_split(pool, members=10, seed=0)
    >>> len(split.members), len(split.nonmembers), split.origin
    (10, 10, 'drawn')
    """
    if other is not None:
        if not isinstance(other, ImageSet):
            raise ValueError(f"the second set is {other!r}, not an ImageSet; to draw from one set pass members=")
        return _given(MembershipSplit(images, other, "given"), drop_duplicates)
    nonmembers = members if nonmembers is None else nonmembers
    if min(members, nonmembers) < 1:
        raise BadInput(f"{members} members and {nonmembers} non-members asked for; each must be at least 1")
    return _drawn(images, members, nonmembers, seed, independent)


def _drawn(images: ImageSet, members: int, nonmembers: int, seed: int, independent: bool) -> MembershipSplit:
    kept = np.unique(duplicate_groups(images))
    dropped = len(images) - len(kept)
    _say_dropped(dropped)
    if members + nonmembers > len(kept):
        raise BadInput(
            f"{members} members + {nonmembers} non-members asked for, but only {len(kept)} of {len(images)} images "
            f"are left after dropping {dropped} duplicates"
        )
    order = kept[torch.randperm(len(kept), generator=generator(seed, "split")).numpy()][: members + nonmembers]
    chosen = np.arange(len(order)) < members
    if independent:
        chosen = torch.rand(len(order), generator=generator(seed, "coins")).numpy() < 0.5
    sides = np.sort(order[chosen]), np.sort(order[~chosen])
    return MembershipSplit(*(images.subset(side) for side in sides), "drawn", seed, dropped, independent)


def _given(split: MembershipSplit, drop_duplicates: bool) -> MembershipSplit:
    groups = duplicate_groups(split.images)
    n = len(split.members)
    if not drop_duplicates:
        _refuse_shared(split, groups)
        _warn_of_twins("members", groups[:n])
        _warn_of_twins("non-members", groups[n:])
        return split
    # The first of a group that has a member is a member, since members come first.
    kept = np.unique(groups)
    _say_dropped(len(groups) - len(kept))
    return replace(
        split,
        members=split.members.subset(kept[kept < n]),
        nonmembers=split.nonmembers.subset(kept[kept >= n] - n),
        dropped=len(groups) - len(kept),
    )


def _refuse_shared(split: MembershipSplit, groups: np.ndarray) -> None:
    n = len(split.members)
    pairs = _pairs_across(groups[:n], groups[n:])
    if pairs:
        shown = ", ".join(f"{split.members.names[i]} = {split.nonmembers.names[j]}" for i, j in pairs[:5])
        more = ", ..." if len(pairs) > 5 else ""
        raise BadInput(
            f"{len(pairs)} non-members duplicate a member, exactly or nearly ({shown}{more}); remove them, or pass "
            "drop_duplicates=True to drop those non-members"
        )


def _warn_of_twins(side: str, groups: np.ndarray) -> None:
    twins = len(groups) - len(np.unique(groups))
    if twins:
        warnings.warn(
            f"{twins} {side} duplicate another of the {side}; an attacker may meet one in training and its twin in "
            "the test, so pass drop_duplicates=True to keep one of each",
            stacklevel=4,
        )


def _pairs_across(members: np.ndarray, nonmembers: np.ndarray) -> list[tuple[int, int]]:
    """For each non-member in a group that has a member: the first such member, and the non-member."""
    first = dict(zip(members[::-1].tolist(), range(len(members) - 1, -1, -1), strict=True))
    return [(first[group], j) for j, group in enumerate(nonmembers.tolist()) if group in first]


def _say_dropped(dropped: int) -> None:
    if dropped:
        print(f"member_split: dropped {dropped} duplicates, kept one of each group")
