"""Picture what an encoder recalls of a background: a small diffusion model that paints from embeddings (METHODS 5).

It is trained on public images alone, so all that it knows of a private image is the embedding it is given: the mean of
the public neighbours of that image's background. What it paints is mostly prior, the look of public images; only the
difference between an encoder that was trained on the image and one that was not can be memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from partcrop_lab import store
from partcrop_lab.dejavu.background import Backgrounds
from partcrop_lab.dejavu.periphery import periphery
from partcrop_lab.dejavu.score import OWN, PROJECTOR, at_layer
from partcrop_lab.devices import default_device, generator, seed_of
from partcrop_lab.encoders import Encoder, zoo
from partcrop_lab.encoders.checkpoint import (
    halved,
    in_order,
    read_description,
    read_weights,
    rounded,
    write_state,
    write_weights,
)
from partcrop_lab.encoders.recorded import as_bytes
from partcrop_lab.encoders.training import rate
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet
from partcrop_lab.images.resample import as_floats, crop_resize, resize
from partcrop_lab.limits import SMALL, building_at_most
from partcrop_lab.progress import bar
from partcrop_lab.schemas import ReconstructorHeader

METADATA = "partcrop_lab reconstructor"
NOISE_STEPS = 1000
TOGETHER = 16
"""Images that are painted together."""
SCHEDULE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
"""Velocities, and painting from the noisiest step on: else the mean colours stay those of the noise."""


@dataclass(frozen=True)
class ReconstructorSettings:
    """How a reconstructor is built and trained.

    Attributes:
        size: side of its pictures in pixels.
        channels: of the U-Net's three levels, each half as wide as the one before; 1.8 million parameters by default.
        epochs, batch, lr: of the training, by AdamW, with a cosine to 0.
        momentum: of the running mean of the weights, which is what paints.
        seed: of weights, order and noise.
    """

    size: int = 32
    channels: tuple[int, ...] = (32, 64, 96)
    epochs: int = 40
    batch: int = 50
    lr: float = 1e-3
    momentum: float = 0.995
    seed: int = 0


class Reconstructor(nn.Module):
    """A diffusion model of public images, given embeddings (diffusers' U-Net and schedulers).

    Args:
        width: E of the embeddings.
        settings: how it is built.

    Raises:
        BadInput: diffusers is not installed.
    """

    def __init__(self, width: int, settings: ReconstructorSettings) -> None:
        super().__init__()
        unet, noising, _ = _diffusers()
        self.width, self.settings, self.about = width, settings, {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of("reconstructor", settings.seed))
            self.unet = unet(
                sample_size=settings.size,
                block_out_channels=settings.channels,
                layers_per_block=1,
                down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
                norm_num_groups=8,
                attention_head_dim=16,
                class_embed_type="identity",
            )
            self.given = nn.Linear(width, 4 * settings.channels[0])
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.noising = noising(NOISE_STEPS, **SCHEDULE)

    def loss(self, pictures: Tensor, embeddings: Tensor, source: torch.Generator) -> Tensor:
        """How well pictures (B, 3, S, S) in [-1, 1] are told from noise (v-prediction), a scalar."""
        noise = torch.randn(pictures.shape, generator=source).to(pictures)
        when = torch.randint(NOISE_STEPS, (len(pictures),), generator=source).to(pictures.device)
        noisy = self.noising.add_noise(pictures, noise, when)
        wanted = self.noising.get_velocity(pictures, noise, when)
        return nn.functional.mse_loss(self._velocity(noisy, when, embeddings), wanted)

    def _velocity(self, noisy: Tensor, when: Tensor, embeddings: Tensor) -> Tensor:
        given = self.given((embeddings.to(noisy) - self.mean) / self.scale)
        return self.unet(noisy, when, class_labels=given).sample

    @torch.no_grad()
    def paint(self, embeddings: Tensor, samples: int = 4, seed: int = 0, steps: int = 30) -> Tensor:
        """Pictures (n, samples, 3, S, S) uint8 from embeddings (n, E); sample s has the same noise for all of them.

        Args:
            embeddings: as the encoder gives them.
            samples: pictures of each.
            seed: of the noise.
            steps: of DDIM.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
            raise BadInput(f"embeddings must be (n, {self.width}); found {tuple(embeddings.shape)}")
        side, device = self.settings.size, self.mean.device
        schedule = _diffusers()[2].from_config(self.noising.config)
        schedule.set_timesteps(steps)
        start = torch.randn(samples, 3, side, side, generator=generator("paint", seed)).to(device)
        now = start.repeat(len(embeddings), 1, 1, 1)
        given = embeddings.to(device).repeat_interleave(samples, 0)
        for when in schedule.timesteps:
            told = self._velocity(now, when.expand(len(now)).to(device), given)
            now = schedule.step(told, when, now).prev_sample
        return as_bytes((now.cpu() + 1) / 2).view(len(embeddings), samples, 3, side, side)

    def save(self, path: str | Path) -> None:
        """Write it in half precision, as a safetensors file."""
        about = {"width": self.width, "settings": asdict(self.settings), **self.about}
        write_weights(path, halved(self.state_dict()), {METADATA: json.dumps(about)})


def load_reconstructor(path: str | Path, encoder: Encoder | None = None) -> Reconstructor:
    """A reconstructor from its file.

    Args:
        path: as `Reconstructor.save` wrote it.
        encoder: whose embeddings it will be given; refused where it was trained on those of another.

    Raises:
        BadInput: no such file, another kind of file, or one that belongs to another encoder.
    """
    try:
        about = read_description(path, METADATA, ReconstructorHeader)
        weights = read_weights(path)
    except BadInput as error:
        raise BadInput(f"{path} is no file of a reconstructor ({error}); Reconstructor.save writes one") from error
    if about is None:
        raise BadInput(f"{path} is no file of a reconstructor; Reconstructor.save writes one")
    if encoder is not None and about["encoder"] != encoder.digest:
        raise BadInput(f"{path} paints from embeddings of {about['name']}, not of {encoder.name} or not as it is now")
    settings = ReconstructorSettings(**store.with_tuples(about.pop("settings")))
    try:
        with building_at_most(SMALL + 8 * Path(path).stat().st_size, "the reconstructor"):
            one = Reconstructor(about.pop("width"), settings)
        one.load_state_dict(weights)
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: what it says of its model is not what it holds ({why})") from error
    one.about = about
    return one.eval()


def zoo_reconstructors(recipe: str) -> dict[str, Reconstructor]:
    """Those kept with the zoo of the pair RECIPE and RECIPE-b, by "A" and "B".

    Raises:
        BadInput: they are not there.
    """
    names = {"A": recipe, "B": f"{recipe}-b"}
    return {which: load_reconstructor(reconstructor_path(name)) for which, name in names.items()}


def reconstructor_path(name: str) -> Path:
    """Where the reconstructor of an encoder of the zoo lies."""
    return zoo.zoo_dir() / "reconstructors" / f"{name}.safetensors"


def train_reconstructor(
    encoder: Encoder,
    public: ImageSet,
    layer: str | int = PROJECTOR,
    out: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Reconstructor:
    """Train one on public images and an encoder's embeddings of them.

    Args:
        encoder: whose embeddings it is given.
        public: images that the encoder was not trained on.
        layer: as of `deja_vu`.
        out: a folder for the state: a run that was stopped goes on where it was.
        progress: show a bar.
        settings: of `ReconstructorSettings`.

    Raises:
        TypeError: an unknown setting.
        BadInput: diffusers is not installed, or `out` holds a run of something else.
    """
    how = ReconstructorSettings(**settings)
    pixels = public.batch(slice(None))
    embeddings = at_layer(encoder, layer)(pixels)
    pictures = resize(as_floats(pixels), how.size).clamp(0, 1) * 2 - 1
    about = {"encoder": encoder.digest, "name": encoder.name, "layer": layer, "public": public.digest}
    one, painter = (Reconstructor(embeddings.shape[1], how).to(default_device()) for _ in range(2))
    for each in (one, painter):
        each.mean.copy_(embeddings.mean(0))
        each.scale.copy_(embeddings.std(0).clamp_min(1e-6))
    adam = torch.optim.AdamW(one.parameters(), lr=how.lr, weight_decay=1e-3)
    state = None if out is None else Path(out) / "state.pt"
    done = _resume(state, about | asdict(how), one, painter, adam)
    for epoch in bar(range(done, how.epochs), "reconstructor", shown=progress):
        source = generator("reconstructor", how.seed, epoch)
        one.train()
        for group in adam.param_groups:
            group["lr"] = how.lr * rate(epoch / how.epochs, 0.0)
        for rows in torch.randperm(len(pictures), generator=source).split(how.batch):
            loss = one.loss(pictures[rows].to(one.mean.device), embeddings[rows], source)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(one.parameters(), 1.0, error_if_nonfinite=True)
            adam.step()
            for mean, now in zip(painter.parameters(), one.parameters(), strict=True):
                mean.data.lerp_(now.data, 1 - how.momentum)
        if state is not None:
            kept = {"about": json.dumps(about | asdict(how)), "epoch": epoch + 1, "adam": adam.state_dict()}
            write_state(state, kept | {"one": one.state_dict(), "painter": painter.state_dict()})
    painter.load_state_dict(rounded(painter.state_dict()))  # as its file will hold it
    painter.about = about
    return painter.cpu().eval()


def _resume(
    state: Path | None, about: dict[str, Any], one: nn.Module, painter: nn.Module, adam: torch.optim.Optimizer
) -> int:
    """Epochs that a state has done, which is loaded; 0 where there is none."""
    if state is None or not state.exists():
        return 0
    kept = read_weights(state)
    if kept["about"] != json.dumps(about):
        raise BadInput(f"{state} is of another encoder, other images or settings; give another out=")
    one.load_state_dict(kept["one"])
    painter.load_state_dict(kept["painter"])
    adam.load_state_dict(kept["adam"])
    return kept["epoch"]


@dataclass(frozen=True)
class Reconstructions:
    """What two encoders' reconstructors paint of images that one of them, or neither, was trained on.

    Attributes:
        table: one row per image: name, set ("A", "B" or "C"), label, model (whose image it is; of C every second is
            counted as A's and the others as B's), and the distances own, other and nearest (root mean square over
            pixels, in units of 255) of the image to what is painted of it under that model, under the other, and to the
            nearest public image under that model.
        images: (n, 3, S, S) uint8, as small as the paintings.
        crops: (n, 3, S, S) uint8, the backgrounds, resized to a square.
        painted: by model, "A" and "B", (n, samples, 3, S, S) uint8.
        nearest: by model, (n, 3, S, S) uint8, the first public neighbour.
    """

    table: pd.DataFrame
    images: Tensor
    crops: Tensor
    painted: dict[str, Tensor]
    nearest: dict[str, Tensor]


def painted_gain(
    table: pd.DataFrame, control: bool = False, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """How much nearer the own model's paintings are than the other's, with its 95 % bootstrap interval.

    In units of 255, the mean of both directions, so that the better of two painters does not decide it. Above 0: who
    was told of the image by the model trained on it paints it more closely.

    Args:
        table: of `Reconstructions`.
        control: of the third set, where 0 is right.
        draws, seed: of the bootstrap over images.
    """
    some = table[(table["set"] == "C") == control]
    sides = [(side["other"] - side["own"]).to_numpy() for _, side in some.groupby("model")]
    source = np.random.default_rng(seed)
    means = [side[source.integers(0, len(side), (draws, len(side)))].mean(1) for side in sides]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return float(np.mean([side.mean() for side in sides])), float(low), float(high)


def reconstruct(
    reconstructors: Mapping[str, Reconstructor],
    backgrounds: Backgrounds,
    third: ImageSet | None = None,
    each: int = 100,
    samples: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Reconstructions:
    """Paint images of two encoders' sets from their backgrounds alone, under the encoder trained on each and the other.

    Args:
        reconstructors: of the encoders "A" and "B", each trained on its own encoder's embeddings.
        backgrounds: the same encoders, with the public images and the layer.
        third: images that neither was trained on, as a control.
        each: images of each set, the first that have a background.
        samples: paintings of each image under each encoder; distances are means over them.
        seed: of the noise, which is the same for both encoders.
        progress: show a bar.

    Raises:
        BadInput: encoders without those names, or reconstructors of other encoders.
    """
    check_reconstructors(reconstructors, backgrounds)
    side = reconstructors["A"].settings.size
    sets = {name: backgrounds.encoders[name].split.members for name in OWN} | ({} if third is None else {"C": third})
    parts = [_asked(which, images, backgrounds, each, side, progress) for which, images in sets.items()]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0] if key != "rows"}
    painted = {}
    for name in OWN:
        given = bar(joined[f"given {name}"].split(TOGETHER), f"paintings under {name}", shown=progress)
        painted[name] = torch.cat([_kept_paintings(reconstructors[name], some, samples, seed) for some in given])
    nearest = {name: joined[f"nearest {name}"] for name in OWN}
    table = pd.DataFrame([row for part in parts for row in part["rows"]])
    far = {name: _distance(painted[name], joined["images"][:, None]).mean(1) for name in OWN}
    public = {name: _distance(nearest[name], joined["images"]) for name in OWN}
    models = table["model"].tolist()
    others = [OWN[model][1] for model in models]
    for column, distances, names in (("own", far, models), ("other", far, others), ("nearest", public, models)):
        table[column] = [float(distances[name][row]) for row, name in enumerate(names)]
    return Reconstructions(table, joined["images"], joined["crops"], painted, nearest)


def _kept_paintings(one: Reconstructor, embeddings: Tensor, samples: int, seed: int) -> Tensor:
    """What `Reconstructor.paint` makes of embeddings, kept in the cache."""
    key = store.digest(asdict(one.settings), *in_order(one.state_dict()), embeddings.numpy(force=True), samples, seed)
    paint = lambda: {"pictures": one.paint(embeddings, samples, seed).numpy()}  # noqa: E731
    return torch.from_numpy(store.cached_arrays("paintings", key, paint)["pictures"])


def check_reconstructors(reconstructors: Mapping[str, Reconstructor], backgrounds: Backgrounds) -> None:
    """Refuse reconstructors that are not those of the encoders "A" and "B" asked, by a BadInput."""
    for name in OWN:
        if name not in backgrounds.encoders or name not in reconstructors:
            raise BadInput("reconstructions compare two encoders; name them, and their reconstructors, A and B")
        if reconstructors[name].about["encoder"] != backgrounds.encoders[name].digest:
            raise BadInput(f"the reconstructor {name} was trained on another encoder's embeddings than {name}'s")
        if (layer := reconstructors[name].about["layer"]) != backgrounds.layer:
            raise BadInput(f"the reconstructor {name} paints from layer={layer!r}, not from {backgrounds.layer!r}")


def _asked(
    which: str, images: ImageSet, backgrounds: Backgrounds, each: int, side: int, progress: bool
) -> dict[str, Any]:
    """The backgrounds of a set, and what both models make of them."""
    found = periphery(images)
    parts: dict[str, Any] = {"rows": []}
    for row in bar(range(min(each, len(found.images))), f"backgrounds of {which}", shown=progress):
        pixels, box = found.images[row], found.boxes[row]
        here = {
            "images": _small(pixels, side),
            "crops": as_bytes(crop_resize(pixels[None], box[None, None], side)[0, 0]),
        }
        for name, one in backgrounds.infer(pixels, box.tolist()).items():
            here[f"given {name}"] = backgrounds.embeddings(name)[one.neighbours].mean(0)
            here[f"nearest {name}"] = _small(backgrounds.public[int(one.neighbours[0])], side)
        for key, value in here.items():
            parts.setdefault(key, []).append(value)
        about = {"name": found.images.names[row], "set": which, "label": int(found.images.labels[row])}
        parts["rows"].append(about | {"model": "AB"[row % 2] if which == "C" else which})
    return {key: some if key == "rows" else torch.stack(some) for key, some in parts.items()}


def _small(pixels: Tensor, side: int) -> Tensor:
    """An image (3, S, S) uint8 at another side, uint8."""
    return as_bytes(resize(as_floats(pixels[None]), side)[0])


def _distance(some: Tensor, others: Tensor) -> Tensor:
    """Root mean square difference over channels and pixels (..., 3, S, S), in units of 255."""
    return (some.float() - others.float()).square().mean((-3, -2, -1)).sqrt()


def _diffusers() -> tuple[Any, Any, Any]:
    """The U-Net, the schedule of training and that of painting."""
    try:
        from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    except ImportError as error:
        raise BadInput("reconstructions need diffusers: pip install 'partcrop-lab[reconstruction]'") from error
    return UNet2DModel, DDPMScheduler, DDIMScheduler
