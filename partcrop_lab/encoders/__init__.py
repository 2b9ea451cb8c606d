"""From a name, a checkpoint or a callable to an `Encoder`, and from images to a new one."""

from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.load import load_encoder
from partcrop_lab.encoders.recipes import RECIPES
from partcrop_lab.encoders.training import pretrain

__all__ = ["RECIPES", "Encoder", "load_encoder", "pretrain"]
