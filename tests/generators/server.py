"""A small OpenAI-compatible server around plain transformers, with vLLM's extensions; runs as a process of its own.

It renders conversations, generates and scores by transformers alone, so that what comes through it is a reference that
is independent of the engine. It can be told to misbehave.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

MODEL = "served-model"


@dataclass
class Service:
    given: argparse.Namespace
    processor: Any
    model: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    adapters: set[str] = field(default_factory=set)
    completions: int = 0

    def inputs(self, body: dict[str, Any]) -> Any:
        plain = self.given.plain
        template = {} if plain else {"continue_final_message": bool(body.get("continue_final_message"))}
        generate = True if plain else body.get("add_generation_prompt", True)
        return self.processor.apply_chat_template(
            [_message(one) for one in body["messages"]],
            add_generation_prompt=generate,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **template,
        )

    def behave(self, how: dict[str, Any]) -> None:
        """Be as the flags of these names say, from now on."""
        self.completions = 0
        vars(self.given).update(how)

    def adapted(self, name: str) -> Any:
        if not hasattr(self.model, "peft_config"):
            return nullcontext()
        if name == MODEL:
            return self.model.disable_adapter()
        self.model.set_adapter(name)
        return nullcontext()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        inputs = self.inputs(body)
        length = inputs["input_ids"].shape[1]
        temperature = body.get("temperature", 1.0)
        drawn = {"do_sample": True, "temperature": temperature, "top_p": body.get("top_p", 1.0)}
        drawn["top_k"] = 0 if self.given.plain else body.get("top_k", 0)
        how = drawn if temperature else {"do_sample": False}
        choices, written = [], 0
        with torch.inference_mode(), self.adapted(body["model"]):
            for index in range(1 if self.given.one else body.get("n", 1)):
                torch.manual_seed((body.get("seed") or 0) + index)
                out = self.model.generate(
                    **inputs,
                    max_new_tokens=body["max_tokens"],
                    return_dict_in_generate=True,
                    output_logits=True,
                    **how,
                )
                ids = out.sequences[0, length:].tolist()
                logits = torch.stack([one[0].float() for one in out.logits])
                choices.append(self._choice(index, ids, logits.log_softmax(-1), body))
                written += len(ids)
            reply = {
                "model": self._says(),
                "choices": choices,
                "usage": {"prompt_tokens": length, "completion_tokens": written},
            }
            if body.get("prompt_logprobs") is not None and not self.given.plain:
                scores = self.model(**inputs).logits[0].float().log_softmax(-1)
                tokens = inputs["input_ids"][0].tolist()
                values = [scores[place, token].item() for place, token in enumerate(tokens[1:])]
                if self.given.lie == "scores":
                    values = [value - 3.0 for value in values]
                entries = [{str(t): {"logprob": v}} for t, v in zip(tokens[1:], values, strict=True)]
                reply["prompt_logprobs"] = [None, *entries]
        return reply

    def _says(self) -> str:
        swapped = self.given.swap_after and self.completions > self.given.swap_after
        return "another-model" if swapped else MODEL

    def _choice(self, index: int, ids: list[int], scores: Any, body: dict[str, Any]) -> dict[str, Any]:
        tokenizer = self.processor.tokenizer
        ended = ids[-1] in _ends(self.model)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        reason = "stop" if ended else "length"
        kept = not self.given.plain and body.get("include_stop_str_in_output")
        found = [(text.find(stop), stop) for stop in body.get("stop") or () if stop in text]
        if found:
            place, stop = min(found)
            text, reason = text[: place + len(stop) * bool(kept)], "stop"
        choice: dict[str, Any] = {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "finish_reason": reason,
        }
        if body.get("logprobs") and not self.given.plain:
            choice["logprobs"] = {"content": [self._token(t, scores[i], body) for i, t in enumerate(ids)]}
        return choice

    def _token(self, token: int, scores: Any, body: dict[str, Any]) -> dict[str, Any]:
        likeliest = scores.topk(body.get("top_logprobs") or 1)
        by_id = body.get("return_tokens_as_token_ids")
        decode = (lambda ids: f"token_id:{ids[0]}") if by_id else self.processor.tokenizer.decode
        lie = self.given.lie == "logprobs"
        return {
            "token": decode([token]),
            "logprob": 0.0 if lie else scores[token].item(),
            "top_logprobs": [
                {"token": decode([t]), "logprob": 0.0 if lie else v}
                for v, t in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
            ],
        }

    def load_adapter(self, name: str, path: str) -> None:
        from peft import PeftModel

        if hasattr(self.model, "peft_config"):
            self.model.load_adapter(path, adapter_name=name)
        else:
            self.model = PeftModel.from_pretrained(self.model, path, adapter_name=name)
        self.model.eval()
        self.adapters.add(name)


def _ends(model: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    return found if isinstance(found, list) else [found]


def _message(given: dict[str, Any]) -> dict[str, Any]:
    import PIL.Image

    if isinstance(given["content"], str):
        return given
    parts = []
    for part in given["content"]:
        if part["type"] == "image_url":
            content = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            parts.append({"type": "image", "image": PIL.Image.open(io.BytesIO(content)).convert("RGB")})
        else:
            parts.append(part)
    return {"role": given["role"], "content": parts}


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path == "/v1/models":
                self.say(200, {"data": [{"id": name} for name in (MODEL, *sorted(service.adapters))]})
            elif self.path == "/version" and not service.given.plain:
                self.say(200, {"version": "0"})
            elif self.path == "/asked":
                self.say(200, {"completions": service.completions})
            else:
                self.say(404, {"error": "no such place"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with service.lock:
                try:
                    self.say(*self.reply(body))
                except Exception as error:
                    self.say(400, {"error": {"message": f"{type(error).__name__}: {error}"}})

        def reply(self, body: dict[str, Any]) -> tuple[int, Any]:
            if self.path == "/behave":
                service.behave(body)
                return 200, {}
            if self.path == "/v1/chat/completions":
                if body["model"] not in (MODEL, *service.adapters):
                    return 404, {"error": {"message": "no such model"}}
                service.completions += 1
                if service.given.die_after and service.completions > service.given.die_after:
                    os._exit(1)
                return 200, service.complete(body)
            if service.given.plain:
                return 404, {"error": "no such place"}
            if self.path == "/tokenize":
                return 200, {"tokens": service.inputs(body)["input_ids"][0].tolist()}
            if self.path == "/detokenize":
                return 200, {"prompt": service.processor.tokenizer.decode(body["tokens"])}
            if self.path == "/v1/load_lora_adapter" and service.given.lora:
                service.load_adapter(body["lora_name"], body["lora_path"])
                return 200, "Success"
            if self.path == "/v1/unload_lora_adapter" and service.given.lora:
                service.adapters.discard(body["lora_name"])
                return 200, "Success"
            return 404, {"error": "no such place"}

        def say(self, code: int, content: Any) -> None:
            payload = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args):
            """Say nothing."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="no extension of vLLM's, and no log-probabilities")
    parser.add_argument("--lora", action="store_true", help="take adapters")
    parser.add_argument("--one", action="store_true", help="pass over n")
    parser.add_argument("--lie", choices=("", "logprobs", "scores"), default="")
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--swap-after", type=int, default=0)
    given = parser.parse_args()

    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.set_num_threads(1)
    model = AutoModelForImageTextToText.from_pretrained(given.model, dtype=torch.float32).eval()
    service = Service(given, AutoProcessor.from_pretrained(given.model), model)
    server = ThreadingHTTPServer(("127.0.0.1", given.port), _handler(service))
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def behaving(url: str, **how: Any) -> Iterator[None]:
    """Have a server misbehave until the block ends."""
    usual = {"plain": False, "lora": True, "one": False, "lie": "", "die_after": 0, "swap_after": 0}
    httpx.post(url.replace("/v1", "/behave"), json=usual | how, timeout=60).raise_for_status()
    try:
        yield
    finally:
        httpx.post(url.replace("/v1", "/behave"), json=usual, timeout=60)


@contextmanager
def serving(model: Path | str, *flags: str, port: int = 0) -> Iterator[str]:
    """The URL of a server process, until the block ends."""
    command = [sys.executable, __file__, "--model", str(model), "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip(), "the server didn't start"
        yield f"http://127.0.0.1:{int(line)}/v1"
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    main()
