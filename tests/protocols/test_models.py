"""What may stand after --models."""

from pathlib import Path

import pytest

from veridical.errors import UserError
from veridical.protocols.models import Measured, measured_models


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "dpo" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder.parent


def test_the_first_is_the_base_and_a_run_an_adapter_on_it(run):
    assert measured_models(["bundled", str(run)]) == [
        Measured("base", "bundled"),
        Measured("dpo", "bundled", run / "adapter"),
    ]
    assert measured_models(["bundled", str(run / "adapter")])[1] == Measured("dpo", "bundled", run / "adapter")


def test_names_can_be_given(run):
    found = measured_models(["before=bundled", f"after={run}", f"again={run}", "some/model"])
    assert [one.name for one in found] == ["before", "after", "again", "model"]
    assert found[3] == Measured("model", "some/model", None)


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    folder = tmp_path / "beta=0.1"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    assert measured_models(["bundled", str(folder)])[1].name == "beta=0.1"


def test_what_cannot_be_measured_is_named(run, tmp_path):
    with pytest.raises(UserError, match="base model first"):
        measured_models([])
    with pytest.raises(UserError, match=r"two are called 'dpo'.*NAME=FOLDER"):
        measured_models(["bundled", str(run), str(run)])
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        measured_models(["bundled", str(tmp_path)])
    with pytest.raises(UserError, match="folder's name"):
        measured_models(["bundled", f"..={run}"])


def test_an_adapter_may_stand_first(run, tmp_path):
    other = tmp_path / "sft" / "adapter"
    other.mkdir(parents=True)
    (other / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="doesn't say which model it belongs to"):
        measured_models([str(run), str(other)])
    (run / "config.yaml").write_text("model: some/model\n")
    assert measured_models([str(run), str(other)]) == [
        Measured("dpo", "some/model", run / "adapter"),
        Measured("sft", "some/model", other),
    ]
    (run / "config.yaml").unlink()
    (run / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "another/model"}')
    assert measured_models([f"first={run / 'adapter'}"]) == [Measured("first", "another/model", run / "adapter")]
