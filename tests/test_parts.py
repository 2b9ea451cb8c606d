"""parts/: crops, responses, energies and membership features against slow literal loops."""

import numpy as np
import oracles
import pytest
import torch

import partcrop_lab as pl
from partcrop_lab.devices import generator
from partcrop_lab.images.resample import crop_resize, random_boxes, resize
from partcrop_lab.parts import cut_parts, gaussian_target, part_boxes

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("side", "size", "scale"),
    [(32, 16, (0.08, 0.2)), (64, 16, (0.08, 1.0)), (64, 32, (0.01, 0.03)), (33, 8, (0.5, 1.0)), (96, 24, (0.01, 1.0))],
)
def test_crops_equal_torchvisions_antialiased_bicubic_resize(side, size, scale):
    source = generator("test", side, size)
    images = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=source)
    boxes, flip = random_boxes(3, 12, side, scale, generator=source), torch.rand(3, 12, generator=source) < 0.5
    crops = crop_resize(images, boxes, size, flip)
    for b in range(3):
        for k in range(12):
            expected = oracles.crop(images[b].float() / 255, boxes[b, k].tolist(), size, bool(flip[b, k]))
            torch.testing.assert_close(crops[b, k], expected, rtol=0, atol=1e-5)


def test_resizing_whole_images_equals_torchvisions():
    images = torch.rand(2, 3, 48, 48, generator=generator("resize"))
    for size in (16, 48, 96):
        expected = torch.stack([oracles.crop(image, (0, 0, 48, 48), size, False) for image in images])
        torch.testing.assert_close(resize(images, size), expected, rtol=0, atol=1e-5)


def test_boxes_follow_random_resized_crops_law():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, 64, 64)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 0.2], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = random_boxes(1, 4000, 64, (0.08, 0.2), generator=generator("law"))[0].numpy()
    columns = [ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]]
    for mine, their in zip(columns, theirs.T):
        assert abs(mine.mean() - their.mean()) < 4 * np.hypot(mine.std(), their.std()) / np.sqrt(4000)
        assert mine.std() == pytest.approx(their.std(), rel=0.1)


def test_boxes_stay_inside_and_keep_their_area_range():
    boxes = random_boxes(5, 200, 32, (0.08, 0.2), generator=generator("inside"))
    assert boxes.min() >= 0 and boxes.max() <= 32
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    share = width * height / 32**2
    assert share.min() > 0.06 and share.max() < 0.23  # rounding to whole pixels moves the ends a little


def test_a_range_that_never_fits_gives_the_whole_image():
    boxes = random_boxes(1, 50, 16, (1.0, 1.0), (4.0, 5.0), generator=generator("whole"))
    assert (boxes == torch.tensor([0, 0, 16, 16])).all()


@pytest.mark.parametrize("scale", [(0.0, 0.2), (0.3, 0.2), (0.5, 1.5)])
def test_an_impossible_scale_range_is_refused(scale):
    with pytest.raises(ValueError, match="scale is"):
        random_boxes(1, 1, 32, scale)


def test_a_box_that_leaves_the_image_is_refused():
    with pytest.raises(ValueError, match="leaves the image"):
        crop_resize(torch.rand(1, 3, 8, 8), torch.tensor([[[0, 0, 9, 4]]]), 4)


def test_an_images_boxes_depend_on_its_pixels_and_the_seed_only():
    together, alone = part_boxes(["a", "b", "c"], 8, 32, seed=3), part_boxes(["b"], 8, 32, seed=3)
    assert torch.equal(together.boxes[1], alone.boxes[0]) and torch.equal(together.flip[1], alone.flip[0])
    assert not torch.equal(together.boxes[0], together.boxes[1])
    assert not torch.equal(alone.boxes, part_boxes(["b"], 8, 32, seed=4).boxes)


def test_same_seed_same_bytes():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator("bytes"))
    parts = [cut_parts(images, part_boxes(["x", "y"], 6, 32, seed=1), 16).numpy().tobytes() for _ in range(2)]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "both"])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_membership_features_equal_the_literal_loop(kind, spread):
    source = generator("oracle", spread)
    maps = spread * torch.randn(3, 16, 12, generator=source)
    parts = spread * torch.randn(3, 7, 12, generator=source)
    target = gaussian_target(7, 16, seed=5)
    expected = torch.tensor([oracles.membership_feature(m, p, target, kind) for m, p in zip(maps, parts)])
    torch.testing.assert_close(pl.membership_features(maps, parts, kind, target), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pl.membership_features(maps, parts, kind, seed=5), expected, rtol=1e-5, atol=1e-5)


def test_the_gaussian_target_is_the_density_of_sorted_normal_draws():
    target = gaussian_target(3, 20, seed=2)
    values = torch.randn(3, 20, generator=generator("gaussian", 2), dtype=torch.float64)
    for row, drawn in zip(target, values):
        torch.testing.assert_close(row, oracles.gaussian_distribution(drawn.tolist()), rtol=1e-5, atol=1e-7)
    assert not torch.equal(gaussian_target(3, 20, seed=3), target)


def test_a_target_of_another_implementation_can_be_injected():
    maps, parts = torch.rand(2, 9, 4), torch.rand(2, 5, 4)
    one = torch.full((9,), 1 / 9)
    injected = pl.membership_features(maps, parts, "gaussian", gaussian_target=one)
    torch.testing.assert_close(injected, pl.membership_features(maps, parts, "uniform"))


def test_cosine_ignores_the_length_of_vectors_and_dot_does_not():
    maps, parts = torch.rand(2, 9, 4) + 0.1, torch.rand(2, 5, 4) + 0.1
    cosine, dot = (
        [pl.membership_features(maps, length * parts, measure=measure, seed=0) for length in (1, 3)]
        for measure in ("cosine", "dot")
    )
    torch.testing.assert_close(*cosine)
    assert not torch.allclose(*dot)


def test_unknown_kinds_and_measures_are_refused_with_the_right_ones():
    maps, parts = torch.rand(1, 4, 2), torch.rand(1, 3, 2)
    with pytest.raises(ValueError, match="uniform, gaussian, both"):
        pl.membership_features(maps, parts, "laplace")
    with pytest.raises(ValueError, match="dot, cosine"):
        pl.membership_features(maps, parts, measure="euclid")


def test_part_response_equals_the_literal_loop(tiny_encoder):
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator("response"))
    box = (3, 5, 19, 17)
    response = pl.part_response(tiny_encoder, image, box, flip=True, seed=4)
    part = oracles.crop(image.float() / 255, box, tiny_encoder.part_size, True)
    vector, positions = tiny_encoder.vectors(part[None])[0], tiny_encoder.feature_map(image[None])[0]
    curve = torch.stack([(vector * position).sum() for position in positions])
    np.testing.assert_allclose(response.similarity, curve.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(response.heatmap.ravel(), response.similarity)
    assert response.heatmap.shape == (4, 4) and response.response.sum() == pytest.approx(1, abs=1e-5)
    target = gaussian_target(1, 16, 4)
    literal = oracles.membership_feature(positions, vector[None], target, "both")
    assert [response.uniform_energy, response.gaussian_energy] == pytest.approx(literal, abs=1e-4)
