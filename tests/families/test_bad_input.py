"""What can't be right is refused before the model runs, by the record's id and with what to do."""

from __future__ import annotations

import pytest
from tests.families.apart import florence2
from tests.families.catalogue import FAMILIES
from tests.families.templates import plain_turns
from tests.families.tiny import random_model
from tests.vlm import plain

from veridical.errors import UserError
from veridical.records import ImageFile
from veridical.vlm.images.files import ImageError
from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare
from veridical.vlm.load import assemble

SEVERAL = ["llava", "llava_next", "gemma3", "internvl", "idefics3", "qwen2_vl", "molmo2", "lfm2_vl"]
ONE = ["blip-2 (OPT)", "instructblip (Llama)"]


def built(name: str):
    tiny = FAMILIES[name]()
    return assemble(name, random_model(tiny), tiny.processor)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_template_that_drops_an_image(name):
    vlm = built(name)
    image = FAMILIES[name]().chat.image
    vlm.processor.chat_template = plain_turns("{% if loop.first %}" + image + "{% endif %}").text
    prepare(vlm, Context((plain.picture(0),), plain.DESCRIBE, key=("r6",)))
    with pytest.raises(UserError, match=r"r7: the processor refuses.* mend the model's chat template"):
        prepare(vlm, Context((plain.picture(0), plain.picture(1)), plain.DESCRIBE, key=("r7",)))


@pytest.mark.parametrize("name", ONE)
def test_two_images_for_a_family_that_takes_one(name):
    vlm = built(name)
    with pytest.raises(UserError, match=r"r7: .* take one image"):
        prepare(vlm, Context((plain.picture(0), plain.picture(1)), plain.DESCRIBE, key=("r7",)))


def test_an_encoder_decoder():
    tiny = florence2()
    model = random_model(tiny)
    with pytest.raises(UserError, match="reads with an encoder"):
        assemble("florence2", model, tiny.processor)


def test_a_broken_image_is_named_with_its_record(tmp_path):
    path = tmp_path / "half.png"
    plain.picture(0).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"r7: .*half\.png.*Fetch or export the file again") as raised:
        prepare(built("llava"), Context((ImageFile(path, "0"),), plain.DESCRIBE, key=("r7",)))
    assert raised.value.reason == "corrupt-image"
