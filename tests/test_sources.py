import io
import warnings
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from partcrop_lab.errors import BadInput
from partcrop_lab.images import listing, load_images, partshapes, torchvision_sets

SIDE = 16


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PARTCROP_LAB_CACHE", str(folder))
    return folder


def quadrants(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Red, green over blue, grey: which way is up shows, and left from right."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2, 0] = 250
    rgb[: height // 2, width // 2 :, 1] = 200
    rgb[height // 2 :, : width // 2, 2] = 220
    rgb[height // 2 :, width // 2 :] = 128
    return Image.fromarray(rgb)


def noise(seed: int, size: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def only_image(folder, **keywords) -> np.ndarray:
    return load_images(folder, **keywords)[0].numpy()


def plain(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants() if orientation == 1 else quadrants().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(only_image(tmp_path), plain(quadrants()))


def test_greyscale_becomes_three_equal_channels(tmp_path):
    quadrants().convert("L").save(tmp_path / "a.png")
    image = only_image(tmp_path)
    assert np.array_equal(image[0], np.asarray(quadrants().convert("L")))
    assert np.array_equal(image[0], image[2])


def test_one_bit_images_become_black_and_white(tmp_path):
    Image.fromarray(np.indices((SIDE, SIDE)).sum(0) % 2 == 0).save(tmp_path / "a.png")
    assert set(only_image(tmp_path).ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 255))
    image.paste((10, 20, 30, 0), (0, 0, SIDE // 2, SIDE))
    image.convert(mode).save(tmp_path / "a.png")
    loaded = only_image(tmp_path)
    assert (loaded[:, :, : SIDE // 2] == 255).all()
    assert (loaded[:, :, SIDE // 2 :] < 60).all()


def test_half_transparency_mixes_with_white(tmp_path):
    Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert np.unique(only_image(tmp_path)).tolist() == [127]


def test_palette_images_keep_their_colours(tmp_path):
    quadrants().convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.gif")
    assert np.abs(only_image(tmp_path).astype(int) - plain(quadrants())).max() <= 2


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_becomes_the_same_colours(tmp_path, suffix):
    quadrants().convert("CMYK").save(tmp_path / f"a.{suffix}", quality=100)
    assert np.abs(only_image(tmp_path).astype(int) - plain(quadrants())).mean() < 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_greyscale_is_scaled_not_clipped(tmp_path, suffix):
    values = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 257).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(only_image(tmp_path)[1], np.arange(SIDE * SIDE).reshape(SIDE, SIDE))


def test_16_bit_colour_png_is_scaled(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(">u2") * 257
    raw = b"".join(b"\0" + row.tobytes() for row in rows.astype(">u2"))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = SIDE.to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(file)
    assert np.array_equal(only_image(tmp_path), (rows // 257).astype(np.uint8).transpose(2, 0, 1))


def test_float_tiff_in_0_to_1_is_scaled_and_others_are_refused(tmp_path):
    Image.fromarray(np.full((SIDE, SIDE), 0.2, np.float32)).save(tmp_path / "a.tif")
    assert np.unique(only_image(tmp_path)).tolist() == [51]
    Image.fromarray(np.full((SIDE, SIDE), 7.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadInput, match=r"a\.tif.*7\.5"):
        load_images(tmp_path)


def test_of_an_animation_the_first_frame_counts(tmp_path):
    quadrants().save(tmp_path / "a.gif", save_all=True, append_images=[noise(0), noise(1)])
    assert np.abs(only_image(tmp_path).astype(int) - plain(quadrants())).mean() < 2


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path):
    wide = Image.new("RGB", (60, 30), "black")
    wide.paste(quadrants(30, 30), (15, 0))
    wide.save(tmp_path / "a.png")
    smooth = np.abs(only_image(tmp_path, size=SIDE).astype(int) - plain(quadrants())).mean()
    assert smooth < 8
    assert only_image(tmp_path, size=30).tolist() == plain(quadrants(30, 30)).tolist()


def test_resizing_is_pillows_antialiased_bicubic(tmp_path):
    noise(0, 64).save(tmp_path / "a.png")
    wanted = noise(0, 64).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert np.array_equal(only_image(tmp_path, size=SIDE), plain(wanted))


def test_size_defaults_to_the_shared_square_side_else_64(tmp_path):
    noise(0, 40).save(tmp_path / "a.png")
    noise(1, 40).save(tmp_path / "b.png")
    assert load_images(tmp_path).size == 40
    noise(2, 41).save(tmp_path / "c.png")
    assert load_images(tmp_path).size == 64
    noise(2, 40).resize((40, 50)).save(tmp_path / "c.png")
    assert load_images(tmp_path).size == 64


@pytest.fixture
def photos(tmp_path):
    for i in range(12):
        folder = tmp_path / "photos" / ("even" if i % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        noise(i).save(folder / f"{i:02d}.png")
    return tmp_path / "photos"


def test_class_folders_give_labels_names_and_order(photos):
    images = load_images(photos)
    assert images.classes == ("even", "odd")
    assert images.labels.tolist() == [0] * 6 + [1] * 6
    assert images.names[0] == "even/00.png"
    assert list(images.names) == sorted(images.names)
    assert np.array_equal(images[6].numpy(), plain(noise(1)))


def test_a_folder_with_images_beside_its_folders_has_no_classes(photos):
    noise(99).save(photos / "loose.PNG")
    images = load_images(photos)
    assert images.classes == ()
    assert set(images.labels.tolist()) == {-1}
    assert "loose.PNG" in images.names


def test_hidden_files_and_other_files_are_left_out(photos):
    (photos / "even" / "._00.png").write_bytes(b"AppleDouble")
    (photos / "notes.txt").write_text("hello")
    (photos / "__MACOSX").mkdir()
    noise(0).save(photos / "__MACOSX" / "00.png")
    assert len(load_images(photos)) == 12


def test_folders_behind_links_are_read_once(photos, tmp_path):
    (tmp_path / "links").mkdir()
    for name in ("even", "odd"):
        (tmp_path / "links" / name).symlink_to(photos / name)
    (photos / "odd" / "back").symlink_to(photos / "odd")
    assert load_images(tmp_path / "links", follow_links=True).names == load_images(photos).names


def test_n_chooses_at_random_by_seed_and_larger_choices_contain_smaller(photos):
    five = load_images(photos, n=5, seed=3)
    assert five.names == load_images(photos, n=5, seed=3).names
    assert five.digest == load_images(photos, n=5, seed=3).digest
    assert set(five.names) < set(load_images(photos, n=6, seed=3).names)
    assert list(five.names) == sorted(five.names)
    assert five.names != load_images(photos, n=5, seed=4).names


def test_names_choose_in_the_order_given(photos):
    images = load_images(photos, names=["odd/03.png", "even/00.png"])
    assert np.array_equal(images[0].numpy(), plain(noise(3)))
    assert np.array_equal(images[1].numpy(), plain(noise(0)))
    assert images.labels.tolist() == [1, 0]


def test_loading_by_the_recorded_source_gives_the_same_images(photos):
    images = load_images(photos, n=7, size=20, seed=5)
    assert load_images(**images.source).digest == images.digest


def write_parquet(path, count: int, column: str = "image", row_group_size: int = 7, **columns):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    content = [{"bytes": png(noise(i)), "path": None} for i in range(count)]
    pq.write_table(pa.table({column: pa.array(content, kind), **columns}), path, row_group_size=row_group_size)


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_rows_keep_their_numbers_and_labels(tmp_path, column):
    write_parquet(tmp_path / "train.parquet", 30, column, label=pa.array(range(30)))
    images = load_images(tmp_path / "train.parquet", n=9, seed=1)
    for name, label, image in zip(images.names, images.labels, images, strict=True):
        row = int(name.removeprefix("train-"))
        assert name == f"train-{row:06d}"
        assert label == row
        assert np.array_equal(image.numpy(), plain(noise(row)))


def test_class_names_come_from_the_hugging_face_metadata(tmp_path):
    write_parquet(tmp_path / "a.parquet", 3, label=pa.array([1, 0, None], pa.int64()))
    table = pq.read_table(tmp_path / "a.parquet")
    info = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "a.parquet")
    images = load_images(tmp_path / "a.parquet")
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [1, 0, -1]


def test_only_the_rows_asked_for_are_decoded(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", 30)
    seen = []
    decode = listing.decode
    monkeypatch.setattr(listing, "decode", lambda encoded, name, size: seen.append(name) or decode(encoded, name, size))
    load_images(tmp_path / "a.parquet", n=4)
    assert len(seen) == 4


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(listing, "MEMORY_LIMIT", 3 * SIDE * SIDE * 5)


def test_large_sets_lie_on_disk_and_are_the_same(photos, monkeypatch, cache):
    in_memory = load_images(photos)
    monkeypatch.setattr(listing, "MEMORY_LIMIT", 3 * SIDE * SIDE * 5)
    on_disk = load_images(photos)
    assert not any(isinstance(store, torch.Tensor) for store in on_disk.pixels.stores)
    assert on_disk.digest == in_memory.digest
    assert torch.equal(on_disk.batch([7, 0]), in_memory.batch([7, 0]))
    assert {path.suffix for path in (cache / "images").iterdir()} == {".npy", ".json"}


def test_large_sets_are_decoded_once_until_a_file_changes(photos, small_memory, monkeypatch):
    first = load_images(photos)
    calls = []
    decode = listing.decode
    monkeypatch.setattr(listing, "decode", lambda *args: calls.append(args) or decode(*args))
    assert load_images(photos).digest == first.digest
    assert not calls
    noise(77).save(photos / "odd" / "11.png", compress_level=0)
    assert load_images(photos).digest != first.digest
    assert len(calls) == 12


def test_large_sets_with_a_damaged_image_skip_it_now_and_later(photos, small_memory):
    (photos / "even" / "00.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.warns(UserWarning, match="skipped 1 images"):
            images = load_images(photos, on_error="skip", size=SIDE)
        assert images.names == load_images(photos, names=images.names, size=SIDE).names
        assert np.array_equal(images[0].numpy(), plain(noise(2)))
    with pytest.raises(BadInput, match=r"even/00\.png"):
        load_images(photos, size=SIDE)


@pytest.fixture
def tiny(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    wnids = ["n02", "n01"]
    for k, wnid in enumerate(wnids):
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
        for i in range(3):
            noise(10 * k + i).save(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", quality=95)
    (root / "val" / "images").mkdir(parents=True)
    for i in range(4):
        noise(100 + i).save(root / "val" / "images" / f"val_{i}.JPEG", quality=95)
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\t{wnids[i % 2]}\t0\t0\t62\t62\n" for i in range(4))
    )
    (root / "wnids.txt").write_text("\n".join(wnids))
    (root / "words.txt").write_text("n01\tgoldfish, Carassius\nn02\tcrane\nn03\tcrane\n")
    return tmp_path


def test_tiny_imagenet_is_read_as_it_unpacks(tiny):
    train, val = load_images("tiny-imagenet", root=tiny), load_images("tiny-imagenet", root=tiny, part="val")
    assert train.classes == val.classes == ("goldfish", "crane")
    assert train.names[0] == "train/n01/images/n01_0.JPEG"
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert val.names[1] == "val/images/val_1.JPEG"
    assert val.labels.tolist() == [1, 0, 1, 0]
    assert load_images(tiny / "tiny-imagenet-200").digest == train.digest
    assert load_images(**val.source).digest == val.digest


def test_cifar_is_found_as_parquet_under_the_root(tmp_path):
    (tmp_path / "cifar10").mkdir()
    write_parquet(tmp_path / "cifar10" / "test.parquet", 3, "img")
    assert load_images("cifar10", root=tmp_path, part="test").names[2] == "test-000002"


def test_cifar_comes_through_torchvision(tmp_path, monkeypatch):
    arrays = np.stack([np.asarray(noise(i)) for i in range(5)])

    def fake(root, train, download):
        return type("Data", (), {"data": arrays, "targets": [0, 1, 0, 1, 1], "classes": ["cat", "dog"]})

    fakes = {"cifar10": torchvision_sets.TorchvisionSet(fake, ("train", "test"), "folder", "archive")}
    monkeypatch.setattr(torchvision_sets, "TORCHVISION_SETS", torchvision_sets.TORCHVISION_SETS | fakes)
    images = load_images("cifar10", root=tmp_path)
    assert images.names[4] == "train-000004"
    assert images.labels.tolist() == [0, 1, 0, 1, 1]
    assert np.array_equal(images[3].numpy(), plain(noise(3)))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_without_a_network_one_sentence_says_where_to_put_what(tmp_path, monkeypatch, name):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(BadInput, match=rf"{name} is not under .*no network.*https?://.*exists") as caught:
        load_images(name, root=tmp_path)
    assert "\n" not in str(caught.value)


def test_only_the_partshapes_that_are_named_are_drawn(monkeypatch):
    drawn, draw = [], partshapes.draw
    monkeypatch.setattr(partshapes, "draw", lambda *how: drawn.append(how[1]) or draw(*how))
    whole = load_images("partshapes", n=6, size=32, seed=2)
    names = [whole.names[4], whole.names[1]]
    drawn.clear()
    some = load_images("partshapes", n=6, size=32, seed=2, names=names)
    assert drawn == [1, 4] and some.names == tuple(names) and some.digest == whole.subset(names).digest
    assert some.part_boxes == whole.subset(names).part_boxes and some.source == whole.source
    for unknown in (["tree"], [*names, "tree"]):
        with pytest.raises(BadInput, match=r"1 of the names asked for .* first 'tree'; its names look like 'partsha"):
            load_images("partshapes", n=6, size=32, seed=2, names=unknown)


def test_partshapes_come_with_boxes_and_classes():
    images = load_images("partshapes", n=3, size=32, seed=2)
    assert len(images.classes) == 10
    assert all(images.part_boxes) and all(images.object_boxes)
    assert load_images("partshapes", n=5, size=32, seed=2).subset([0, 1, 2]).digest == images.digest
    assert load_images(**images.source).digest == images.digest
    assert load_images("partshapes", n=3, size=32, seed=2, names=images.names[2:]).digest == images.subset([2]).digest


def truncated_jpeg(folder):
    file = io.BytesIO()
    noise(0, 64).save(file, "JPEG")
    (folder / "bad.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


def truncated_png(folder):
    (folder / "bad.png").write_bytes(png(noise(0, 64))[:3000])


def one_pixel(folder):
    Image.new("RGB", (1, 1)).save(folder / "bad.png")


def narrow(folder):
    Image.new("RGB", (100, 7)).save(folder / "bad.png")


def text(folder):
    (folder / "bad.jpg").write_text("hello, this is text")


def nothing(folder):
    (folder / "bad.png").touch()


def bomb(folder):
    (folder / "bad.ppm").write_bytes(b"P6 20000 20000 255 ")


DAMAGED = {
    truncated_jpeg: r"bad\.jpg: a damaged .*truncated",
    truncated_png: r"bad\.png: a damaged",
    one_pixel: r"bad\.png: 1 x 1 pixels; .* at least 8",
    narrow: r"bad\.png: 100 x 7 pixels",
    text: r"bad\.jpg: not an image .*found another kind of file",
    nothing: r"bad\.png: not an image .*an empty file",
    bomb: r"bad\.ppm: more than 178 million pixels",
}


@pytest.mark.parametrize("make", DAMAGED, ids=lambda make: make.__name__)
def test_a_damaged_image_is_refused_by_name_in_one_sentence(tmp_path, make):
    make(tmp_path)
    noise(1).save(tmp_path / "good.png")
    with pytest.raises(BadInput, match=DAMAGED[make]) as caught:
        load_images(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", DAMAGED, ids=lambda make: make.__name__)
def test_a_damaged_image_can_be_skipped_with_a_warning(tmp_path, make):
    make(tmp_path)
    noise(1).save(tmp_path / "good.png")
    with pytest.warns(UserWarning, match="skipped 1 images, the first: .*bad"):
        images = load_images(tmp_path, on_error="skip", size=SIDE)
    assert images.names == ("good.png",)
    assert images.source["skipped"] in (["bad.png"], ["bad.jpg"], ["bad.ppm"])
    assert np.array_equal(images[0].numpy(), plain(noise(1)))


def test_a_folder_of_damaged_images_alone_is_refused_even_when_skipping(tmp_path):
    one_pixel(tmp_path)
    with pytest.raises(BadInput, match="none of its 1 images can be used"):
        load_images(tmp_path, on_error="skip")


def test_good_images_are_not_warned_about(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(photos, on_error="skip")


@pytest.mark.parametrize(
    ("source", "keywords", "message"),
    [
        ("empty", {}, "empty: no image files in this folder"),
        ("missing", {}, "missing: no such folder or parquet file, nor a named source; these are partshapes"),
        ("notes.parquet", {}, r"notes\.parquet: not a parquet file"),
        ("columns.parquet", {}, r"columns\.parquet: no column img or image .*label: int64"),
        ("strings.parquet", {}, "image: string"),
        ("norows.parquet", {}, "holds no images"),
        ("broken.parquet", {}, "broken-000001: not an image"),
        ("corrupt.parquet", {}, r"corrupt\.parquet: a damaged parquet file"),
        ("photos", {"n": 3}, "n=3 images asked for, but .*photos holds 1; choose n from 1 to 1"),
        ("photos", {"n": 0}, "n=0"),
        ("photos", {"size": 4}, "size=4"),
        ("photos", {"names": []}, "the list of names is empty"),
        ("photos", {"names": ["b.png"]}, r"1 images are not there, the first 'b\.png'"),
        ("photos", {"names": ["a.png", "a.png"]}, r"'a\.png' occurs more than once"),
        ("tiny-imagenet", {}, r"Tiny-ImageNet is not under .*wnids\.txt exists"),
    ],
)
def test_bad_sources_are_refused_in_one_sentence(tmp_path, monkeypatch, source, keywords, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    noise(0).save(tmp_path / "photos" / "a.png")
    (tmp_path / "notes.parquet").write_text("hello")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "strings.parquet")
    write_parquet(tmp_path / "norows.parquet", 0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    broken = pa.array([{"bytes": png(noise(0)), "path": None}, {"bytes": b"text", "path": None}], kind)
    pq.write_table(pa.table({"img": broken}), tmp_path / "broken.parquet")
    write_parquet(tmp_path / "corrupt.parquet", 20)
    content = bytearray((tmp_path / "corrupt.parquet").read_bytes())
    content[4:300] = bytes(296)
    (tmp_path / "corrupt.parquet").write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_images(source, **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "keywords", "message"),
    [
        ("partshapes", {"part": "train"}, "no option 'part'; it has 'background_correlation'"),
        (".", {"part": "train"}, "no option 'part'; it has 'boxes'"),
        ("cifar10", {"part": "val"}, "cifar10 has train, test"),
        ("tiny-imagenet", {"part": "test"}, "'train' and 'val'"),
        ("partshapes", {"on_error": "ignore"}, "'raise' or 'skip'"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(source, keywords, message):
    with pytest.raises(ValueError, match=message):
        load_images(source, **keywords)
