import numpy as np
import pytest
import torch

from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet
from partcrop_lab.images.pixels import Pixels


def pixels(n: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8))


@pytest.fixture(params=["memory", "disk"])
def images(request, tmp_path) -> ImageSet:
    stored = pixels(10)
    if request.param == "disk":
        np.save(tmp_path / "pixels.npy", stored.numpy())
        stored = tmp_path / "pixels.npy"
    boxes = [{"head": (0, 0, i + 1, 2)} for i in range(10)]
    return ImageSet(stored, [f"im{i}" for i in range(10)], np.arange(10) % 3, ("a", "b", "c"), boxes)


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [
        (slice(2, 5), [2, 3, 4]),
        ([3, 1, 1], [3, 1, 1]),
        (np.array([9, -1]), [9, 9]),
        (torch.tensor([4]), [4]),
        ([], []),
        (np.arange(10) > 7, [8, 9]),
    ],
    ids=["slice", "repeated", "negative", "tensor", "none", "mask"],
)
def test_batch_takes_slices_indices_and_masks(images, chosen, rows):
    assert torch.equal(images.batch(chosen), pixels(10)[rows])


def test_an_item_is_one_image_and_iteration_ends(images):
    assert torch.equal(torch.stack(list(images)), pixels(10))
    assert torch.equal(torch.cat(list(images.batches(3))), pixels(10))


def test_a_batch_is_a_copy(images):
    images.batch([0]).zero_()
    assert torch.equal(images[0], pixels(10)[0])


def test_subset_by_names_keeps_every_column_in_the_order_asked(images):
    some = images.subset(["im7", "im2"])
    assert some.names == ("im7", "im2")
    assert some.labels.tolist() == [1, 2]
    assert some.part_boxes == ({"head": (0, 0, 8, 2)}, {"head": (0, 0, 3, 2)})
    assert torch.equal(some.batch(slice(None)), pixels(10)[[7, 2]])
    assert some.subset([1]).names == ("im2",)


def test_subset_of_unknown_names_is_refused(images):
    with pytest.raises(BadInput, match=r"1 of the names .* 'nope'"):
        images.subset(["im1", "nope"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"names": ["a", "b", "a"]}, "'a' occurs more than once"),
        ({"names": ["a"]}, "names has 1 entries for 3 images"),
        ({"labels": [0, 1]}, "labels has 2 entries for 3 images"),
        ({"object_boxes": [()]}, "object_boxes has 1 entries"),
        ({"images": torch.zeros(3, 3, 8, 8)}, "float32"),
        ({"images": torch.zeros(3, 8, 8, 3, dtype=torch.uint8)}, r"\(3, 8, 8, 3\)"),
        ({"images": torch.zeros(3, 3, 8, 9, dtype=torch.uint8)}, "square"),
    ],
)
def test_columns_that_do_not_fit_are_refused(keywords, message):
    with pytest.raises(BadInput, match=message):
        ImageSet(**{"images": pixels(3), **keywords})


def test_digest_follows_pixels_and_order_and_nothing_else(images):
    same = ImageSet(pixels(10))
    assert images.digest == same.digest
    assert images.hashes == same.hashes
    assert images.subset(slice(None, None, -1)).digest != same.digest
    changed = pixels(10)
    changed[4, 0, 0, 0] ^= 1
    assert ImageSet(changed).digest != same.digest


def test_hashes_handed_on_to_subsets_equal_those_computed_anew(images):
    assert images.hashes
    joined = ImageSet.concat([images.subset([5, 3]), images.subset(["im8"])])
    assert joined.__dict__["hashes"] == ImageSet(pixels(10)[[5, 3, 8]]).hashes


def test_concat_joins_memory_and_disk_without_copying(tmp_path):
    np.save(tmp_path / "pixels.npy", pixels(4, seed=1).numpy())
    left, right = ImageSet(pixels(3), ["a", "b", "c"]), ImageSet(tmp_path / "pixels.npy", list("wxyz"))
    joined = ImageSet.concat([right.subset([3, 0]), left, right.subset([1])])
    assert joined.names == ("z", "w", "a", "b", "c", "x")
    wanted = torch.cat([pixels(4, seed=1)[[3, 0]], pixels(3), pixels(4, seed=1)[[1]]])
    assert torch.equal(joined.batch(slice(None)), wanted)
    assert torch.equal(joined.batch([5, 2, 0]), wanted[[5, 2, 0]])
    assert len(joined.pixels.stores) == 2


def test_concat_keeps_labels_only_under_the_same_classes():
    left, right = ImageSet(pixels(1), ["a"], [0], ["cat"]), ImageSet(pixels(1), ["b"], [0], ["dog"])
    assert ImageSet.concat([left, left.subset([])]).labels.tolist() == [0]
    assert ImageSet.concat([left, right]).labels.tolist() == [-1, -1]
    assert ImageSet.concat([left, right]).classes == ()


def test_concat_refuses_shared_names_and_unequal_sizes():
    with pytest.raises(BadInput, match="occurs more than once"):
        ImageSet.concat([ImageSet(pixels(2)), ImageSet(pixels(2))])
    with pytest.raises(BadInput, match=r"\[8, 16\] px"):
        ImageSet.concat([ImageSet(pixels(2)), ImageSet(pixels(2, size=16), ["x", "y"])])


def test_a_set_whose_cached_pixels_were_cleared_says_so(tmp_path):
    np.save(tmp_path / "pixels.npy", pixels(4).numpy())
    images = ImageSet(tmp_path / "pixels.npy")
    (tmp_path / "pixels.npy").unlink()
    with pytest.raises(BadInput, match="load the images again"):
        images.batch([0])


def test_pixels_on_disk_are_not_held_in_memory(tmp_path):
    np.save(tmp_path / "pixels.npy", pixels(4).numpy())
    assert all(not isinstance(store, torch.Tensor) for store in Pixels.of(tmp_path / "pixels.npy").stores)
