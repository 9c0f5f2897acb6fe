"""Images decoded ahead of the model: the same images and errors, in any order, and never more than a bounded amount."""

import threading
import time

import pytest
from PIL import Image

from veridical.records import ImageFile
from veridical.vlm.images.files import ImageError, open_image
from veridical.vlm.inputs import decode_ahead
from veridical.vlm.inputs.decode_ahead import DecodeAhead


@pytest.fixture
def files(tmp_path) -> list[ImageFile]:
    found = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
        found.append(ImageFile(path, str(number)))
    return found


def until(true) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it never came true")


def test_every_image_is_itself_in_whatever_order_it_is_asked_for(files):
    with DecodeAhead() as opens:
        opens.expect(files[:6])
        opens.expect(files[4:])
        for image in [*files[::-1], *files]:
            assert opens(image).getpixel((0, 0)) == (int(image.sha256), 0, 0)


def test_images_are_decoded_by_others_before_they_are_asked_for(files):
    here, seen = threading.get_ident(), {}

    def opens(image):
        seen[image] = threading.get_ident()
        return open_image(image)

    with DecodeAhead(opens) as ahead:
        ahead.expect([*files[:4], Image.new("RGB", (8, 8))])
        until(lambda: len(seen) == 4)
        ahead(files[11])
    assert [seen[image] == here for image in [*files[:4], files[11]]] == [False, False, False, False, True]


def test_no_more_is_held_than_there_is_room_for(files, monkeypatch):
    monkeypatch.setattr(decode_ahead, "MOST_PIXELS", 3 * 16 * 16)
    with DecodeAhead() as opens:
        opens.expect(files)
        until(lambda: len(opens._pixels) >= 3 and len(opens._pixels) == len(opens._decoding))
        # Those that were under way when there was still room come on top.
        assert len(opens._decoding) < 3 + opens._threads
        for image in files:
            opens(image)
        assert not opens._pixels


def test_an_error_is_raised_where_the_image_is_asked_for(files):
    files[1].path.write_bytes(b"\x89PNG broken")
    with DecodeAhead() as opens:
        opens.expect(files[:3])
        opens(files[0])
        with pytest.raises(ImageError):
            opens(files[1])
        opens(files[2])
