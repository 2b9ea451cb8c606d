"""What every defence is: a way to train, or to serve, that yields an `Encoder`, so that any attack runs on it."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from partcrop_lab.attacks import Attack
from partcrop_lab.encoders import Encoder, pretrain
from partcrop_lab.encoders.recipes import Recipe, make_recipe
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, MembershipSplit
from partcrop_lab.store import with_tuples

DEFENSES: dict[str, type[Defense]] = {}
"""Every defence by its name; `register` adds to it."""


class Defense(ABC):
    """A way to betray less; subclasses are frozen dataclasses of their settings.

    Those of training change how an encoder is made (`changes`), those of serving what it answers (`wrap`).
    """

    name: ClassVar[str]
    stage: ClassVar[str]
    """When it is taken: "training" or "serving"."""

    @property
    def settings(self) -> dict[str, Any]:
        """The defence's name and settings, JSON-able."""
        return {"defense": self.name, **asdict(self)}

    @property
    def label(self) -> str:
        """The name and the settings that are not its defaults, as `partcrop-lab defend` takes them."""
        own, defaults = asdict(self), asdict(type(self)())
        changed = [f"{name}={_plain(value)}" for name, value in own.items() if value != defaults[name]]
        return " ".join([self.name, *changed])

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """Keywords of `pretrain` that differ under the defence, for a recipe as it would be, on so many images."""
        return {}

    def fit(
        self,
        recipe: str,
        data: MembershipSplit | ImageSet,
        epochs: int | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        **how: Any,
    ) -> Encoder:
        """Train under the defence, as `pretrain` would, and serve the encoder as it says.

        Args:
            recipe, data, epochs, seed, out, how: as `pretrain` takes them, without a defence.
        """
        settings = {} if epochs is None else {"epochs": epochs}
        fields = {name: value for name, value in how.items() if name not in ENGINE}
        planned = make_recipe(recipe, **(settings | fields))
        images = data.members if isinstance(data, MembershipSplit) else data
        keywords = settings | how | self.changes(planned, len(images))
        return self.wrap(pretrain(recipe, data, seed=seed, out=out, **keywords))

    def wrap(self, encoder: Encoder) -> Encoder:
        """The encoder as it is served."""
        return encoder

    def hindered(self, attack: Attack) -> Attack:
        """The attack as far as the defence lets it ask."""
        return attack

    def adaptive(self, encoder: Encoder, attack: Attack) -> tuple[Encoder, Attack]:
        """How an attacker who knows the defence asks the defended encoder: through what, and with which attack.

        Attackers are fitted on the defended encoder's features in any case.
        """
        return encoder, self.hindered(attack)


def card_of(encoder: Encoder, lost: str, instead: str = "") -> dict[str, Any]:
    """The card of an encoder that can be trained again or on: it holds recipe, settings, seed and split.

    Args:
        encoder: the encoder.
        lost: what cannot be done without, in words.
        instead: what else would do, in words.

    Raises:
        BadInput: the card holds less.
    """
    if not {"recipe", "settings", "seed", "split"} <= encoder.card.keys():
        right = ", ".join(filter(None, ["take one of pretrain or of the zoo", instead]))
        raise BadInput(f"encoder {encoder.name} does not say how it was trained, {lost}; {right}")
    try:  # settings of the recipe alone: of `pretrain` a file must not choose the folder, devices or epochs to keep
        make_recipe(encoder.card["recipe"], **encoder.card["settings"])
    except (TypeError, ValueError) as error:
        raise BadInput(f"the card of encoder {encoder.name} cannot be followed: {error}") from error
    return encoder.card


ENGINE = set(inspect.signature(pretrain).parameters)
"""Keywords of `pretrain` that are no settings of the recipe."""


def defended(encoder: Encoder, defense: Defense, out: str | Path | None = None, progress: bool = True) -> Encoder:
    """An encoder under a defence: served by it, or trained again by its card, on its own members and from its seed.

    Args:
        encoder: of ours, with a card and a split, where the defence is one of training.
        defense: which.
        out: folder of the training, to resume it.
        progress: show a bar.

    Raises:
        BadInput: training again is asked of an encoder whose card does not say how it was trained.
    """
    if defense.stage == "serving":
        return defense.wrap(encoder)
    card = card_of(encoder, f"so it cannot be trained again under {defense.name}", "or a defence of serving")
    how = {"seed": card["seed"], "out": out, "progress": progress}
    return defense.fit(card["recipe"], encoder.split, **how, **card["settings"])


def spelled(label: str) -> str:
    """A label with the setting that levels differ in, where it is the default and so left out.

    >>> spelled("noise"), spelled("noise sigma=0.5"), spelled("none")
    ('noise sigma=1.0', 'noise sigma=0.5', 'none')
    """
    if label not in DEFENSES:
        return label
    setting, value = next(iter(asdict(DEFENSES[label]()).items()), ("", None))
    return f"{label} {setting}={_plain(value)}" if setting else label


def register(defense: type[Defense]) -> type[Defense]:
    """Class decorator: makes a defence known by its `name`."""
    DEFENSES[defense.name] = defense
    return defense


def make_defense(name: str, **settings: Any) -> Defense:
    """A defence by its name, with settings.

    Raises:
        ValueError: no defence has that name.

    >>> make_defense("noise", sigma=0.5).label
    'noise sigma=0.5'
    """
    if name not in DEFENSES:
        raise ValueError(f"defense is {name!r}; it must be one of {', '.join(sorted(DEFENSES))}")
    return DEFENSES[name](**settings)


def defense_from(settings: Mapping[str, Any]) -> Defense:
    """The defence that `Defense.settings` describes, also as it is read from a file."""
    own = with_tuples(settings)
    return make_defense(own.pop("defense"), **own)


def _plain(value: Any) -> str:
    return f"({', '.join(f'{one:g}' for one in value)})" if isinstance(value, tuple) else str(value)
