from __future__ import annotations

import pytest
import torch

from veridical.errors import UserError
from veridical.vlm.load import load
from veridical.vlm.model import devices


def test_any_device_of_torch_is_taken_and_others_refused(llava_folder):
    assert devices.choose("cpu") == torch.device("cpu")
    assert load(llava_folder, device="cpu").model.device.type == "cpu"
    for unknown in ("cuda:99", "gpu", "mps" if not torch.backends.mps.is_available() else "xpu:7"):
        with pytest.raises(UserError, match=unknown):
            devices.choose(unknown)


def test_of_several_gpus_one_is_taken_and_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert devices.choose("auto") == torch.device("cuda", 0)
    assert "4 GPUs are visible; this process uses cuda:0" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.choose("auto") == torch.device("cuda", 3)
    assert not capsys.readouterr().err
