import hashlib
import json

from PIL import Image

from veridical.world.records import world_records, write_folder


def test_records_have_pictures_references_and_annotations(tmp_path):
    records = world_records("anti-bias", 6, 3, tmp_path)
    assert len({record.id for record in records}) == 6
    for record in records:
        (image,) = record.images
        assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.sha256
        assert Image.open(image.path).size == (192, 192)
        assert record.annotations is not None
        assert record.reference is not None
        assert all(name in record.reference or name[:-2] in record.reference for name in record.annotations.names)
    assert world_records("anti-bias", 6, 3, tmp_path) == records
    assert world_records("anti-bias", 6, 4, tmp_path)[0] != records[0]


def test_the_folder_is_an_image_folder(tmp_path):
    records = world_records("pairs", 4, 0, tmp_path)
    rows = [json.loads(line) for line in write_folder(records, tmp_path).read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [record.images[0].path.name for record in records]
    assert [row["text"] for row in rows] == [record.reference for record in records]
    assert all((tmp_path / row["file_name"]).is_file() for row in rows)
