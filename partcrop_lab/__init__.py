"""PartCrop Lab: membership inference against visual self-supervised encoders, with evidence that is sound."""

from importlib.metadata import version

from partcrop_lab import attacks, defenses, dejavu, plots
from partcrop_lab.audit import AuditResult, Comparison, audit, compare
from partcrop_lab.encoders import Encoder, load_encoder, pretrain
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, MembershipSplit, load_images, member_split
from partcrop_lab.parts import membership_features, part_response

__version__ = version("partcrop-lab")

__all__ = [
    "AuditResult",
    "BadInput",
    "Comparison",
    "Encoder",
    "ImageSet",
    "MembershipSplit",
    "attacks",
    "audit",
    "compare",
    "defenses",
    "dejavu",
    "load_encoder",
    "load_images",
    "member_split",
    "membership_features",
    "part_response",
    "plots",
    "pretrain",
]
