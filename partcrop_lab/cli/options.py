"""Options that several commands take, and what their texts mean."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from partcrop_lab import ImageSet, MembershipSplit
from partcrop_lab.attacks import ATTACKS, Attack, make_attack
from partcrop_lab.defenses import Defense
from partcrop_lab.defenses.base import DEFENSES, make_defense
from partcrop_lab.errors import BadInput
from partcrop_lab.progress import no_bars

Option = typer.Option
Images = Annotated[str | None, Option(help="A named set, folder or parquet file to draw members and non-members from.")]
Members = Annotated[int | None, Option(min=1, help="How many members to draw from --images.")]
Nonmembers = Annotated[int | None, Option(min=1, help="How many non-members to draw; default as many.")]
Size = Annotated[int | None, Option(min=8, help="Side in pixels to load images at; default the encoder's.")]
MemberDir = Annotated[str | None, Option(help="Folder or parquet file of images it was trained on.")]
NonmemberDir = Annotated[str | None, Option(help="Folder or parquet file of like images it never saw.")]
AttackText = Annotated[str, Option(help="Attack by name, with settings as in 'encodermi kind=T'.")]
SplitFile = Annotated[Path | None, Option(help="A split that MembershipSplit.save or pretrain wrote.")]
Duplicates = Annotated[bool, Option("--drop-duplicates", help="Drop non-members that duplicate one.")]
Skip = Annotated[bool, Option("--skip-unreadable", help="Leave out images that cannot be read, with a warning.")]

Links = Annotated[bool, Option("--follow-links", help="Take images outside the folder, where links in it lead.")]


def _hide_bars(context: typer.Context, quiet: bool) -> bool:
    if quiet:
        context.with_resource(no_bars())
    return quiet


Quiet = Annotated[bool, Option("--quiet", callback=_hide_bars, help="No progress bars; of an audit only the verdict.")]


@dataclass(frozen=True)
class Sides:
    """Where members and non-members come from, as options say it: one of four ways.

    Raises:
        typer.BadParameter: options of different ways together, or half of one.
    """

    split: Path | None = None
    member_dir: str | None = None
    nonmember_dir: str | None = None
    images: str | None = None
    members: int | None = None
    nonmembers: int | None = None
    size: int | None = None
    seed: int = 0
    drop_duplicates: bool = False
    skip_unreadable: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        ways = {
            "--split": self.split,
            "--member-dir with --nonmember-dir": self.member_dir or self.nonmember_dir,
            "--images with --members": self.images or self.members or self.nonmembers,
        }
        given = [way for way, value in ways.items() if value is not None]
        if len(given) > 1:
            raise typer.BadParameter(f"{' and '.join(given)} exclude each other; give one of them")
        if (self.member_dir is None) != (self.nonmember_dir is None):
            raise typer.BadParameter("--member-dir and --nonmember-dir need each other")
        if (self.images is None) != (self.members is None) or (self.nonmembers and not self.members):
            raise typer.BadParameter("--images and --members need each other")

    @property
    def given(self) -> bool:
        """Whether any way was named."""
        return any(value is not None for value in (self.split, self.member_dir, self.images))

    def load(self, size: int | None = None) -> MembershipSplit:
        """The split, its images at `size` px unless the options say another."""
        import partcrop_lab as pl

        size = self.size or size
        if self.split:
            return pl.MembershipSplit.load(self.split)
        if self.images:
            pool = self._pool(size)
            return pl.member_split(pool, members=self.members, nonmembers=self.nonmembers, seed=self.seed)
        sides = (self._load(self.member_dir, size=size), self._load(self.nonmember_dir, size=size))
        return pl.member_split(*sides, drop_duplicates=self.drop_duplicates)

    def _pool(self, size: int | None) -> ImageSet:
        """Some more images than are drawn, since duplicates are dropped; all where there are not so many."""
        wanted = self.members + (self.members if self.nonmembers is None else self.nonmembers)
        try:
            return self._load(self.images, n=wanted + wanted // 10 + 8, size=size)
        except BadInput as error:
            if "choose n from" not in str(error):
                raise
        return self._load(self.images, size=size)

    def _load(self, source: str, **how: Any) -> ImageSet:
        import partcrop_lab as pl

        how |= {"follow_links": True} if self.follow_links else {}
        return pl.load_images(source, seed=self.seed, on_error="skip" if self.skip_unreadable else "raise", **how)


def named(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def keywords(texts: Iterable[str] | None) -> dict[str, Any]:
    """Keywords from key=value, the value read as a Python or JSON literal where it is one.

    >>> keywords(["depth=4", "crop_scale=(0.2, 1)", "flip=false", "name=mine"])
    {'depth': 4, 'crop_scale': (0.2, 1), 'flip': False, 'name': 'mine'}
    """
    words = {"true": True, "false": False, "null": None, "none": None}
    pairs = {}
    for text in texts or ():
        key, found, value = text.partition("=")
        if not found or not key.isidentifier():
            raise typer.BadParameter(f"{text!r} is not of the form key=value")
        try:
            pairs[key] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pairs[key] = value
    return pairs


def attack_of(text: str, **settings: Any) -> Attack:
    """An attack from its name and settings, as "encodermi kind=T views=5", and further settings."""
    name, *pairs = _words(text)
    settings = keywords(pairs) | settings
    if name in ATTACKS:
        _check_settings("attack", name, ATTACKS[name], settings)
    return make_attack(name, **settings)


def defense_of(text: str) -> Defense:
    """A defence from its name and settings, as "noise sigma=0.5"."""
    name, *pairs = _words(text)
    settings = keywords(pairs)
    if name in DEFENSES:
        _check_settings("defence", name, DEFENSES[name], settings)
    return make_defense(name, **settings)


def _words(text: str) -> list[str]:
    """The words of a text, what stands in brackets as one.

    >>> _words("scsr scale=(0.2, 0.6)")
    ['scsr', 'scale=(0.2, 0.6)']
    """
    return re.findall(r"(?:\([^)]*\)|\S)+", text)


def _check_settings(kind: str, name: str, of: type, settings: dict[str, Any]) -> None:
    known = {field.name: field for field in fields(of)}
    foreign = [key for key in settings if key not in known]
    if foreign:
        raise typer.BadParameter(f"the {kind} {name} has no setting {foreign[0]}; it has {', '.join(known)}")
    for key, value in settings.items():
        if not _fits(value, known[key].default):
            told = f"{key} of the {kind} {name} is {str(value)[:40]!r}"
            raise typer.BadParameter(f"{told}; it must be like its default, {known[key].default!r}")


def _fits(value: Any, default: Any) -> bool:
    """Whether a setting is of the kind of its default; where that is None or not said, anything is.

    >>> _fits(3, 0.5), _fits("x", 3), _fits((1, 2), (0.1, 0.2)), _fits(True, 3)
    (True, False, True, False)
    """
    if isinstance(default, bool) or not isinstance(default, (int, float, str, tuple)):
        return isinstance(value, bool) if isinstance(default, bool) else True
    if isinstance(default, tuple):
        alike = isinstance(value, (tuple, list)) and len(value) == len(default)
        return not default or (alike and all(map(_fits, value, default)))
    wanted = str if isinstance(default, str) else int if isinstance(default, int) else (int, float)
    return isinstance(value, wanted) and not isinstance(value, bool)


def check_writable(*paths: Path | None) -> None:
    """Before long work: whether results can be written where they are asked for, each to a file of its own.

    Raises:
        BadInput: a folder that cannot be written, or a path that is a folder, a device, or named twice.
    """
    places = [path for path in paths if path is not None]
    for path in places:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is no regular file; name another")
        if sum(other.resolve() == path.resolve() for other in places) > 1:
            raise BadInput(f"{path} would be written twice, one over the other; give each output a name of its own")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise BadInput(f"{path} cannot be written ({error.strerror}); choose another folder") from error
