"""Tiny models on disk, built once a session; loading one takes a tenth of a second."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from models import tiny_llava, tiny_qwen2_vl


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def qwen2_vl_folder(tmp_path_factory) -> Path:
    return tiny_qwen2_vl(tmp_path_factory.mktemp("qwen2_vl"))


def pytest_configure() -> None:
    # Processes started from a script's background inherit deafness to Ctrl-C, and tests send it to their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser) -> None:
    parser.addoption("--update-support", action="store_true", help="write the table of supported models anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with whole commands come first, so that no process waits for one of them at the end."""
    long = {item.path for item in items if item.get_closest_marker("end_to_end")}
    items.sort(key=lambda item: item.path not in long)
