"""The bundled model behind a server, and a few pictures of the world."""

from __future__ import annotations

import pytest
from tests.generators.server import serving

from veridical.records import Record
from veridical.vlm.load import load
from veridical.vlm.model.loading import Vlm


@pytest.fixture(scope="session")
def bundled_folder():
    from veridical.vlm.model.loading import source_of

    return source_of("bundled")


@pytest.fixture(scope="session")
def vlm() -> Vlm:
    return load("bundled", device="cpu")


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> list[Record]:
    from veridical.world.records import world_records

    return world_records("pairs", 4, 3, tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def url(bundled_folder):
    with serving(bundled_folder, "--lora") as place:
        yield place
