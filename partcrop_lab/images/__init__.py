"""From a source name or a folder to an `ImageSet`, and from image sets to a `MembershipSplit`."""

from partcrop_lab.images.duplicates import duplicate_groups
from partcrop_lab.images.imageset import Box, ImageSet
from partcrop_lab.images.sources import load_images
from partcrop_lab.images.split import MembershipSplit, member_split

__all__ = ["Box", "ImageSet", "MembershipSplit", "duplicate_groups", "load_images", "member_split"]
