from __future__ import annotations

import pytest

from veridical.vlm.model.loading import Vlm, load


@pytest.fixture
def llava(llava_folder) -> Vlm:
    return load(llava_folder)
