from __future__ import annotations

import pytest

from veridical.vlm.load import load
from veridical.vlm.model.loading import Vlm


@pytest.fixture(params=["llava", "qwen2_vl"])
def folder(request):
    return request.getfixturevalue(f"{request.param}_folder")


@pytest.fixture
def vlm(folder) -> Vlm:
    return load(folder)


@pytest.fixture
def llava(llava_folder) -> Vlm:
    return load(llava_folder)
