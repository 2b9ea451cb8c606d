"""Object boxes: ImageNet's XML files in their real layout, tables beside folders, and where boxes lie in the square."""

import numpy as np
import pytest
from PIL import Image

from partcrop_lab.errors import BadInput
from partcrop_lab.images import load_images
from partcrop_lab.images.boxes import Annotation, read_table, read_xml

VOC = """<annotation><folder>{folder}</folder><filename>{name}</filename>
<source><database>ILSVRC_2012</database></source>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size><segmented>0</segmented>
{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""
DOG, CAT = "n02084071", "n02121808"


def write_image(path, width=60, height=40, seed=0, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG", **how)


def write_xml(path, boxes, width=60, height=40, name=DOG):
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(OBJECT.format(*box, name=name) for box in boxes)
    path.write_text(VOC.format(folder=path.parent.name, name=path.stem, width=width, height=height, objects=objects))


@pytest.fixture
def imagenet(tmp_path):
    """Four training images of two classes: one box, two boxes, no file of boxes, and boxes of a larger original."""
    data, boxes = (tmp_path / "ILSVRC" / kind / "CLS-LOC" for kind in ("Data", "Annotations"))
    for k, (wnid, found, scale) in enumerate(
        [
            (DOG, [(10, 0, 30, 20)], 1),
            (DOG, [(0, 0, 15, 40), (40, 10, 60, 30)], 1),
            (CAT, None, 1),
            (CAT, [(20, 0, 60, 40)], 2),
        ]
    ):
        write_image(data / "train" / wnid / f"{wnid}_{k}.JPEG", seed=k)
        if found is not None:
            write_xml(boxes / "train" / wnid / f"{wnid}_{k}.xml", found, 60 * scale, 40 * scale, wnid)
    write_image(data / "val" / "ILSVRC2012_val_00000001.JPEG", seed=9)
    write_xml(boxes / "val" / "ILSVRC2012_val_00000001.xml", [(0, 0, 60, 40)], name=CAT)
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{DOG} dog, domestic dog\n{CAT} cat, true cat\n")
    return tmp_path


def test_imagenet_is_read_as_it_unpacks_with_its_boxes(imagenet):
    images = load_images("imagenet", root=imagenet, size=20)
    assert images.classes == ("dog", "cat") and images.labels.tolist() == [0, 0, 1, 1]
    assert images.names[0] == f"{DOG}/{DOG}_0.JPEG"
    # 60 x 40 to 20 px: half the size, and 5 px cut off on the left and on the right
    assert images.object_boxes == (((0, 0, 10, 10),), ((0, 0, 2.5, 20), (15, 5, 20, 15)), (), ((0, 0, 10, 10),))
    again = load_images("imagenet", root=imagenet, size=20, names=images.names[1:2])
    assert again.object_boxes == images.object_boxes[1:2]


def test_the_labels_of_val_are_those_of_the_solution_or_of_the_boxes(imagenet):
    val = load_images("imagenet", root=imagenet, size=20, part="val")
    assert val.classes[val.labels[0]] == "cat" and val.object_boxes == (((0, 0, 20, 20),),)
    (imagenet / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\nILSVRC2012_val_00000001,{DOG} 1 2 3 4\n")
    assert load_images("imagenet", root=imagenet, size=20, part="val").labels.tolist() == [0]


def test_imagenet_without_boxes_has_none(imagenet):
    (imagenet / "ILSVRC" / "Annotations").rename(imagenet / "elsewhere")
    assert load_images("imagenet", root=imagenet, size=20).object_boxes is None


def test_a_broken_file_of_boxes_is_named_or_its_image_left_out(imagenet):
    broken = imagenet / "ILSVRC" / "Annotations" / "CLS-LOC" / "train" / DOG / f"{DOG}_0.xml"
    broken.write_text("<annotation><object>")
    with pytest.raises(BadInput, match=rf"{DOG}_0\.xml: not a readable file of object boxes"):
        load_images("imagenet", root=imagenet, size=20)
    with pytest.warns(UserWarning, match="skipped 1 images"):
        images = load_images("imagenet", root=imagenet, size=20, on_error="skip")
    assert len(images) == 3 and images.source["skipped"] == [f"{DOG}/{DOG}_0.JPEG"]
    assert len(images.object_boxes) == 3


def test_a_broken_file_of_boxes_in_val_costs_its_image_alone(imagenet):
    """Without the table of labels the XML files tell the classes too, before any image is chosen."""
    write_image(imagenet / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG")
    (imagenet / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml").write_text("<annotation>")
    with pytest.warns(UserWarning, match="skipped 1 images"):
        val = load_images("imagenet", root=imagenet, size=20, part="val", on_error="skip")
    assert val.classes[val.labels[0]] == "cat" and len(val) == 1
    with pytest.raises(BadInput, match="not a readable file of object boxes"):
        load_images("imagenet", root=imagenet, size=20, part="val")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>", "not a readable file"),
        (VOC.format(folder="", name="", width=6, height=4, objects=OBJECT.format(5, 0, 5, 4, name="x")), "is empty"),
    ],
)
def test_boxes_need_four_numbers_in_order(tmp_path, text, told):
    (tmp_path / "one.xml").write_text(text)
    with pytest.raises(BadInput, match=told):
        read_xml(tmp_path / "one.xml")


def test_a_missing_or_unknown_part_of_imagenet_is_said(imagenet, tmp_path):
    with pytest.raises(ValueError, match="part is 'test'; ImageNet has 'train' and 'val'"):
        load_images("imagenet", root=imagenet, part="test")
    with pytest.raises(BadInput, match=r"ImageNet is not under .*; unpack imagenet_object"):
        load_images("imagenet", root=tmp_path / "nowhere")


def test_a_folder_takes_a_table_of_boxes(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name, 40, 40)
    (tmp_path / "boxes.csv").write_text("name,x0,y0,x1,y1\na.jpg,0,0,20,10\na.jpg,30,30,40,40\n")
    images = load_images(tmp_path, size=20, boxes="boxes.csv")
    assert images.object_boxes == (((0, 0, 10, 5), (15, 15, 20, 20)), ())
    assert load_images(tmp_path, size=20).object_boxes is None
    with pytest.raises(ValueError, match="has no option 'frames'; it has 'boxes'"):
        load_images(tmp_path, frames="boxes.csv")


def test_boxes_turn_with_a_photograph(tmp_path):
    """Stored lying, shown upright: 20 wide and 40 high, of which the middle 20 x 20 are kept."""
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / "a.jpg", 40, 20, exif=exif)
    (tmp_path / "boxes.csv").write_text("name,x0,y0,x1,y1\na.jpg,0,10,20,20\n")
    assert load_images(tmp_path, size=20, boxes="boxes.csv").object_boxes == (((0, 0, 20, 10),),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,x0,y0,x1\na.jpg,0,0,2\n", "has no column y1; a table of boxes has name, x0, y0, x1, y1"),
        ("name,x0,y0,x1,y1\na.jpg,0,0,2,2\na.jpg,5,0,2,2\n", "row 3 holds no box"),
        ("name,x0,y0,x1,y1\na.jpg,0,0,wide,2\n", "row 2 holds no box"),
        ("name,x0,y0,x1,y1\nz.jpg,0,0,2,2\n", "names none of the 1 images"),
        ("", "not a readable CSV"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, told):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(BadInput, match=told):
        load_images(tmp_path, size=20, boxes="boxes.csv")


def test_boxes_outside_the_square_are_dropped():
    assert Annotation(((0, 0, 4, 20), (18, 0, 40, 20))).squared((40, 20), 10) == ((4, 0, 10, 10),)


def test_a_table_groups_boxes_by_image(tmp_path):
    (tmp_path / "t.csv").write_text("name,x0,y0,x1,y1\n1,0,0,1,1\n2,0,0,1,1\n1,2,2,3,3\n")
    table = read_table(tmp_path / "t.csv")
    assert {name: len(one.boxes) for name, one in table.items()} == {"1": 2, "2": 1}
