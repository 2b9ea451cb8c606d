import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, MembershipSplit, duplicate_groups, duplicates, load_images, member_split

SIDE = 32


def picture(seed: int, size: int) -> np.ndarray:
    """A picture with structure at every scale, (3, size, size)."""
    rng = np.random.default_rng(seed)
    coarse_to_fine = [
        np.kron(rng.normal(0, 60 / np.sqrt(side / 2), (3, side, side)), np.ones((size // side, size // side)))
        for side in (2, 4, 8, 16)
    ]
    return np.clip(128 + sum(coarse_to_fine), 0, 255).astype(np.uint8)


def pictures(n: int, seed: int = 0, size: int = SIDE) -> np.ndarray:
    """The first n pictures of an endless series, (n, 3, size, size) uint8; no two alike."""
    return np.stack([picture(1000 * seed + i, size) for i in range(n)])


def named(images: np.ndarray, prefix: str = "p") -> ImageSet:
    return ImageSet(images, [f"{prefix}{i}" for i in range(len(images))])


def per_image(change):
    """A change of one PIL image, as a change of an array (n, 3, S, S)."""
    return lambda images: np.stack(
        [np.asarray(change(Image.fromarray(image.transpose(1, 2, 0)))).transpose(2, 0, 1) for image in images]
    )


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


TWINS = {
    "copied": lambda images: images.copy(),
    "mirrored": lambda images: images[..., ::-1],
    "re-encoded": per_image(jpeg),
    "resized": per_image(lambda image: image.resize((20, 20)).resize(image.size)),
    "brighter": lambda images: np.clip(images.astype(int) + 25, 0, 255).astype(np.uint8),
    "less contrast": lambda images: (images * 0.8).astype(np.uint8),
    "grey": per_image(lambda image: image.convert("L").convert("RGB")),
    "cropped to 97 %": per_image(lambda image: image.resize(image.size, box=(0.5, 0.5, 31.5, 31.5))),
    "mirrored and re-encoded": lambda images: TWINS["re-encoded"](images[..., ::-1]),
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def pool() -> ImageSet:
    return load_images("partshapes", n=60, size=32)


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 pictures."""
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(pictures(12)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "photos" / f"{i:02d}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("twin", TWINS)
def test_planted_twins_are_found_and_nothing_else(twin):
    originals = pictures(40)
    groups = duplicate_groups(named(np.concatenate([originals, TWINS[twin](originals)])))
    assert groups.tolist() == [*range(40), *range(40)]


@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_drawn_objects_are_never_duplicates(correlation):
    images = load_images("partshapes", n=150, size=32, seed=1, background_correlation=correlation)
    assert duplicate_groups(images).tolist() == list(range(150))


def test_skies_with_a_speck_in_different_places_are_not_duplicates():
    rows = np.linspace(90, 220, SIDE)[:, None] * np.ones(SIDE)
    skies = np.stack([rows * 0.5, rows * 0.8, rows]) + np.random.default_rng(0).normal(0, 1, (10, 3, SIDE, SIDE))
    for i, sky in enumerate(skies):
        sky[:, 6 * (i // 2) + 3 :, 6 * (i % 2) + 1 :][:, :4, :4] = 30
    images = np.clip(skies, 0, 255).astype(np.uint8)
    assert duplicate_groups(named(images)).tolist() == list(range(10))


def test_pictures_in_the_same_frame_are_not_duplicates():
    images = pictures(30)
    images[:, :, [0, 1, -2, -1]] = 255
    images[:, :, :, [0, 1, -2, -1]] = 255
    assert duplicate_groups(named(images)).tolist() == list(range(30))


def test_plain_images_are_duplicates_only_when_equal():
    grey = np.stack([np.full((3, SIDE, SIDE), value, np.uint8) for value in (10, 200, 10)])
    assert duplicate_groups(named(grey)).tolist() == [0, 1, 0]


def test_groups_do_not_depend_on_the_block_or_the_cache(monkeypatch):
    images = named(np.concatenate([pictures(20), pictures(20)[::-1], pictures(20, seed=1)]))
    wanted = duplicate_groups(images)
    monkeypatch.setattr(duplicates, "CHUNK", 7)
    monkeypatch.setattr(duplicates, "KEEP_ABOVE", 10)
    assert duplicate_groups(images).tolist() == wanted.tolist()
    monkeypatch.setattr(duplicates, "_groups", None)
    assert duplicate_groups(images).tolist() == wanted.tolist()


@pytest.mark.parametrize("size", [8, 16, 64, 100])
def test_twins_are_found_at_any_size(size):
    originals = pictures(10, size=64)
    resize = per_image(lambda image: image.resize((size, size)))
    small = resize(originals)
    groups = duplicate_groups(named(np.concatenate([small, small[..., ::-1]])))
    assert groups.tolist() == [*range(10), *range(10)]


POOL = named(np.concatenate([pictures(30), TWINS["mirrored"](pictures(5)), pictures(3)]))


@settings(max_examples=40, deadline=None)
@given(members=st.integers(1, 20), nonmembers=st.integers(1, 10), seed=st.integers(0, 2**31))
def test_drawn_sides_are_disjoint_of_the_size_asked_and_without_duplicates(members, nonmembers, seed):
    split = member_split(POOL, members=members, nonmembers=nonmembers, seed=seed)
    assert (len(split.members), len(split.nonmembers)) == (members, nonmembers)
    assert not set(split.members.names) & set(split.nonmembers.names)
    assert len(set(duplicate_groups(split.images).tolist())) == members + nonmembers
    assert split.dropped == 8


@settings(max_examples=30, deadline=None)
@given(known=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
def test_halves_are_disjoint_complete_and_stratified(known, seed):
    split = MembershipSplit(POOL.subset(slice(0, 17)), POOL.subset(slice(17, 28)), "given")
    ours, others = split.halves(seed, known)
    assert sorted([*ours.tolist(), *others.tolist()]) == list(range(28))
    assert split.member[ours].sum() == int(known * 17)
    assert (~split.member[ours]).sum() == int(known * 11)


def test_halves_follow_the_seed(pool):
    split = member_split(pool, members=20)
    assert np.array_equal(split.halves(1)[0], split.halves(1)[0])
    assert not np.array_equal(split.halves(1)[0], split.halves(2)[0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        split.halves(0, known=1.0)


def test_a_drawn_split_follows_its_seed_and_knows_itself(pool):
    split = member_split(pool, members=20, seed=4)
    again, other = member_split(pool, members=20, seed=4), member_split(pool, members=20, seed=5)
    assert split.members.names == again.members.names
    assert split.digest == again.digest != other.digest
    assert (split.origin, split.seed, split.dropped) == ("drawn", 4, 0)
    assert len(split.images) == len(split.member) == 40
    assert torch.equal(split.images.batch(split.member), split.members.batch(slice(None)))
    assert split.images.part_boxes[20] == split.nonmembers.part_boxes[0]


def test_a_drawn_split_says_how_many_duplicates_it_dropped(capsys):
    split = member_split(POOL, members=5)
    assert split.dropped == 8
    assert capsys.readouterr().out == "member_split: dropped 8 duplicates, kept one of each group\n"


def test_the_digest_is_of_pixels_and_sides_not_of_names_order_or_source(photos, pool):
    split = MembershipSplit(ImageSet(pictures(12)[:6]), named(pictures(12)[6:]), "given")
    folder = load_images(photos)
    order = [5, 3, 0, 1, 2, 4]
    from_disk = MembershipSplit(folder.subset(order), folder.subset(slice(6, None)), "drawn", seed=3)
    assert split.digest == from_disk.digest
    assert MembershipSplit(split.nonmembers, split.members, "given").digest != split.digest


def test_a_given_split_with_shared_images_is_refused_with_the_pairs_named():
    images = pictures(20)
    members = named(images[:10], "in")
    others = named(np.concatenate([images[10:], TWINS["re-encoded"](images[3:4]), images[:7, ..., ::-1]]), "out")
    with pytest.raises(
        BadInput, match=r"8 non-members duplicate a member.*in3 = out10, in0 = out11.*\.\.\.\)"
    ) as caught:
        member_split(members, others)
    assert str(caught.value).count(" = ") == 5


def test_dropping_duplicates_of_a_given_split_keeps_the_members(capsys):
    images = pictures(20)
    members = named(np.concatenate([images[:10], images[:1]]), "in")
    others = named(np.concatenate([images[9:], TWINS["mirrored"](images[15:16])]), "out")
    split = member_split(members, others, drop_duplicates=True)
    assert split.members.names == tuple(f"in{i}" for i in range(10))
    assert split.nonmembers.names == tuple(f"out{i}" for i in range(1, 11))
    assert split.dropped == 3
    assert "dropped 3 duplicates" in capsys.readouterr().out


def test_duplicates_within_a_given_side_are_warned_about():
    members = named(np.concatenate([pictures(5), pictures(2)]), "in")
    with pytest.warns(UserWarning, match="2 members duplicate another of the members"):
        split = member_split(members, named(pictures(5, seed=1), "out"))
    assert len(split.members) == 7


def test_sides_that_share_names_are_told_apart():
    split = member_split(ImageSet(pictures(3)), ImageSet(pictures(3, seed=1)))
    assert split.images.names[2:4] == ("members/000002", "nonmembers/000000")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"members": 20}, "20 members \\+ 20 non-members asked for, but only 30 of 38 .* dropping 8 duplicates"),
        ({"members": 0}, "0 members and 0 non-members asked for"),
        ({"other": ImageSet(pictures(4, size=16))}, "members have 32 px a side and non-members 16"),
        ({"other": POOL.subset([])}, "38 members and 0 non-members"),
        ({"other": POOL.subset([1, 2]), "drop_duplicates": True}, "30 members and 0 non-members"),
    ],
    ids=["too few", "none", "sizes", "empty", "all shared"],
)
def test_splits_that_cannot_be_are_refused(keywords, message):
    with pytest.raises(BadInput, match=message):
        member_split(POOL, **keywords)


def test_a_number_as_the_second_set_is_refused():
    with pytest.raises(ValueError, match="pass members="):
        member_split(POOL, 5)


def test_a_saved_split_is_the_same_when_loaded(pool, tmp_path):
    split = member_split(pool, members=20, seed=1)
    split.save(tmp_path / "split.json")
    loaded = MembershipSplit.load(tmp_path / "split.json")
    assert loaded.digest == split.digest
    assert loaded.members.names == split.members.names
    assert (loaded.origin, loaded.seed, loaded.dropped) == ("drawn", 1, 0)
    assert MembershipSplit.from_record(json.loads(json.dumps(split.record()))).digest == split.digest


def test_a_saved_split_finds_images_beside_its_file(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = member_split(load_images("photos"), members=4)
    split.save("split.json")
    assert MembershipSplit.load("split.json").digest == split.digest
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "partshapes").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert MembershipSplit.load(tmp_path / "split.json").digest == split.digest


def test_a_split_of_joined_and_given_sets_is_saved_and_loaded(photos, pool, tmp_path):
    folder = load_images(photos, size=32)
    members = ImageSet.concat([pool.subset(slice(0, 4)), folder.subset([7, 2])], ["drawn/", "photo/"])
    split = member_split(members.subset([5, 1, 0]), pool.subset(slice(10, 13)))
    split.save(tmp_path / "split.json")
    loaded = MembershipSplit.load(tmp_path / "split.json")
    assert loaded.digest == split.digest
    assert loaded.members.names == ("photo/02.png", "drawn/partshapes-0-000001", "drawn/partshapes-0-000000")


def test_a_split_of_images_with_skipped_ones_is_saved_and_loaded(photos, tmp_path):
    (photos / "00.png").write_text("no image")
    with pytest.warns(UserWarning, match="skipped 1"):
        split = member_split(load_images(photos, on_error="skip", size=32), members=4)
    split.save(tmp_path / "split.json")
    assert MembershipSplit.load(tmp_path / "split.json").digest == split.digest


def change_pixels(photos, path):
    for file in photos.iterdir():
        Image.new("RGB", (SIDE, SIDE)).save(file)


def remove_images(photos, path):
    for file in list(photos.iterdir())[1:]:
        file.unlink()


def remove_file(photos, path):
    path.unlink()


def write_text(photos, path):
    path.write_text("hello")


def write_other_json(photos, path):
    path.write_text('{"members": 3}')


def write_list(photos, path):
    path.write_text("[]")


def lose_a_key(photos, path):
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (change_pixels, "images of this split have changed"),
        (remove_images, "are not there"),
        (remove_file, "no such file"),
        (write_text, "not a JSON file"),
        (write_other_json, "not the record of a split"),
        (write_list, "not the record of a split"),
        (lose_a_key, "not the record of a split: digest"),
    ],
)
def test_a_split_that_no_longer_holds_is_refused_by_name(photos, tmp_path, harm, message):
    path = tmp_path / "split.json"
    member_split(load_images(photos), members=4).save(path)
    harm(photos, path)
    with pytest.raises(BadInput, match=rf"split\.json: .*{message}|split\.json: {message}"):
        MembershipSplit.load(path)


def test_a_split_of_arrays_cannot_be_saved_but_has_a_record(tmp_path):
    split = member_split(named(pictures(8)), members=3)
    with pytest.raises(BadInput, match="handed over as arrays"):
        split.save(tmp_path / "split.json")
    with pytest.raises(BadInput, match="cannot be loaded"):
        MembershipSplit.from_record(split.record())


def test_fair_coins_decide_each_image_of_an_independent_split(tmp_path):
    pool = load_images("partshapes", n=120, size=32, seed=8)
    split = member_split(pool, members=50, seed=3, independent=True)
    assert split.independent and len(split.images) == 100 and 35 <= len(split.members) <= 65
    assert len({len(member_split(pool, members=50, seed=s, independent=True).members) for s in range(8)}) > 3
    split.save(tmp_path / "split.json")
    assert MembershipSplit.load(tmp_path / "split.json").independent
