"""Parts of images, how they respond over a feature map, and the membership features made of that."""

from partcrop_lab.parts.crops import PartCrops, cut_parts, part_boxes
from partcrop_lab.parts.features import membership_features, part_energies
from partcrop_lab.parts.responses import PartResponse, gaussian_target, part_response, response_energy, similarity

__all__ = [
    "PartCrops",
    "PartResponse",
    "cut_parts",
    "gaussian_target",
    "membership_features",
    "part_boxes",
    "part_energies",
    "part_response",
    "response_energy",
    "similarity",
]
