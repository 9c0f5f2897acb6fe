from __future__ import annotations

import pytest

from veridical.vlm.load import load
from veridical.vlm.model.loading import Vlm


@pytest.fixture
def llava(llava_folder) -> Vlm:
    return load(llava_folder)
