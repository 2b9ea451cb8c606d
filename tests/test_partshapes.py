"""partshapes is deterministic, varied, recognisable, and its boxes lie where the parts are."""

import hashlib

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from partcrop_lab.images.partshapes import BACKGROUNDS, CLASSES, OWN_BACKGROUND, draw, partshapes

PARTS = {
    "chair": {"seat", "back", "legs"},
    "dog": {"head", "muzzle", "ears", "body", "legs", "tail"},
    "car": {"body", "roof", "windows", "wheels", "lights"},
    "bird": {"head", "beak", "body", "wing", "tail", "legs"},
    "fish": {"body", "tail", "fins", "eye", "mouth"},
    "aeroplane": {"fuselage", "wings", "tail", "windows", "engine"},
    "house": {"walls", "roof", "door", "windows", "chimney"},
    "tree": {"trunk", "branches", "crown"},
    "cup": {"body", "rim", "handle", "saucer"},
    "bicycle": {"wheels", "frame", "handlebar", "saddle", "pedals"},
}


@pytest.fixture(scope="module")
def many():
    return partshapes(1500, size=32, seed=3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (32, "e039b1d95547286dd189920e5a876399fbd2918e8c3948ba4c6f470d77ef737b"),
        (64, "b8169cb102f5d79939876684dc6267d06e96a5b2b958a1d90563f674ccf3306b"),
    ],
)
def test_the_pixels_are_pinned(size, expected):
    pixels = b"".join(draw(0, i, size).image.tobytes() for i in range(20))
    assert hashlib.sha256(pixels).hexdigest() == expected


def test_an_image_is_the_same_drawn_alone_or_among_others():
    few, more = partshapes(3, seed=5), partshapes(6, seed=5)
    assert np.array_equal(few.images, more.images[:3])
    alone = draw(5, 2)
    assert np.array_equal(alone.image.transpose(2, 0, 1), few.images[2])
    assert (alone.label, alone.parts, (alone.object_box,)) == (few.labels[2], few.part_boxes[2], few.object_boxes[2])


def test_another_seed_or_number_is_another_image():
    assert len({draw(seed, i).image.tobytes() for seed in range(3) for i in range(5)}) == 15


def test_names_are_unique_and_carry_the_seed():
    names = partshapes(4, size=32, seed=9).names
    assert names == ("partshapes-9-000000", "partshapes-9-000001", "partshapes-9-000002", "partshapes-9-000003")


@pytest.mark.parametrize("size", [32, 64, 97])
def test_every_named_part_has_a_box_inside_the_frame_and_the_object(size):
    drawn = partshapes(150, size=size, seed=1)
    for label, parts, ((ox0, oy0, ox1, oy1),) in zip(drawn.labels, drawn.part_boxes, drawn.object_boxes):
        assert set(parts) == PARTS[CLASSES[label]]
        for x0, y0, x1, y1 in parts.values():
            assert 0 <= ox0 <= x0 < x1 <= ox1 <= size
            assert 0 <= oy0 <= y0 < y1 <= oy1 <= size


def test_the_object_does_not_depend_on_the_background():
    """Behind an opaque wall nothing shows; far from the object nearly all pixels change."""
    houses = [i for i in range(150) if CLASSES[draw(0, i, 32).label] == "house"]
    for i in houses:
        free, tied = draw(0, i), draw(0, i, background_correlation=1.0)
        assert (free.label, free.parts) == (tied.label, tied.parts)
        if free.background == tied.background:
            assert np.array_equal(free.image, tied.image)
            continue
        same = (free.image == tied.image).all(-1)
        x0, y0, x1, y1 = free.parts["walls"]
        assert same[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].mean() > 0.8
        assert same[:4].mean() < 0.1


def test_the_size_changes_the_rendering_and_not_the_object():
    for i in range(20):
        small, large = draw(2, i, 56), draw(2, i, 224)
        assert (small.label, small.background) == (large.label, large.background)
        assert np.abs(4 * np.array(small.object_box) - large.object_box).max() <= 12
        coarse = large.image.reshape(56, 4, 56, 4, 3).mean((1, 3))
        assert np.abs(coarse - small.image).mean() < 20


def test_full_correlation_gives_each_class_its_own_background():
    drawn = partshapes(60, size=32, background_correlation=1.0)
    assert all(OWN_BACKGROUND[CLASSES[label]] == b for label, b in zip(drawn.labels, drawn.backgrounds))
    assert sorted(OWN_BACKGROUND) == sorted(CLASSES)
    assert sorted(OWN_BACKGROUND.values()) == sorted(BACKGROUNDS)


def test_half_correlation_ties_about_half():
    drawn = partshapes(500, size=32, seed=4, background_correlation=0.5)
    own = np.mean([OWN_BACKGROUND[CLASSES[label]] == b for label, b in zip(drawn.labels, drawn.backgrounds)])
    assert abs(own - 0.55) < 0.07


def test_without_correlation_background_and_class_are_independent(many):
    table = np.zeros((len(CLASSES), len(BACKGROUNDS)))
    for label, background in zip(many.labels, many.backgrounds):
        table[label, BACKGROUNDS.index(background)] += 1
    assert chi2_contingency(table).pvalue > 0.01
    assert table.sum(0).min() > 100
    assert table.sum(1).min() > 100


def test_neighbours_in_pixels_seldom_share_the_class(many):
    pixels = many.images.reshape(len(many.images), -1).astype(np.float32)
    train, test = pixels[:1100], pixels[1100:]
    distance = (train**2).sum(1) - 2 * test @ train.T
    assert (many.labels[distance.argmin(1)] == many.labels[1100:]).mean() < 0.5


def test_a_linear_model_on_edge_directions_recognises_the_classes(many):
    """Histograms of gradient directions on a grid, far simpler than a network, do well above the chance of 10 %."""
    grey = many.images.mean(1)
    dy, dx = np.gradient(grey, axis=(1, 2))
    direction = (np.arctan2(dy, dx) % np.pi / np.pi * 8).astype(int) % 8
    strength = np.hypot(dx, dy)
    cells = [(strength * (direction == k)).reshape(-1, 8, 4, 8, 4).sum((2, 4)) for k in range(8)]
    features = np.sqrt(np.stack(cells, 1).reshape(len(grey), -1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(features[:1100], many.labels[:1100])
    assert model.score(features[1100:], many.labels[1100:]) > 0.4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 31}, "size is 31"),
        ({"size": 225}, "size is 225"),
        ({"background_correlation": 1.5}, "background_correlation is 1.5"),
        ({"background_correlation": -0.1}, "background_correlation is -0.1"),
        ({"seed": -1}, "seed is -1"),
        ({"n": -1}, "is -1"),
    ],
)
def test_values_out_of_range_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        partshapes(**{"n": 1, **arguments})


def test_no_images_are_an_empty_set():
    assert partshapes(0).images.shape == (0, 3, 64, 64)
