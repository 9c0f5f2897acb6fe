"""Find out what a server is, before any work: the model, what it can do, its adapters, whether it tells the truth.

Nothing is taken from a server's name. Each ability is tried on one example picture: a continued text must lengthen the
prompt by less than a new turn does; a text to stop after must be in the answer; log-probabilities must be such, and the
same for a text whether the server writes or reads it. What a server passes over in silence is thus found lacking.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from veridical.abilities import Ability
from veridical.errors import UserError
from veridical.files import read_json
from veridical.generators import chat
from veridical.generators.config import ServedSettings
from veridical.generators.pictures import data_urls
from veridical.http_client import BadReplyError, CallError, HttpClient, UnknownError, check_url, read_key
from veridical.hub import fetched_adapter
from veridical.judges.endpoint import COMPLETIONS, read_extra
from veridical.records import Message
from veridical.runs import content_digest
from veridical.vlm.probe import example

Complete: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[chat.Completion]]
QUESTION = "Describe this image."
PROBE_TOKENS = 8
LOCAL_ONLY = frozenset({Ability.UNCLIPPED_PIXELS, Ability.IMAGE_TOKENS, Ability.EMBED, Ability.LOGITS})
_TOLERANCE = 0.25
"""By how much a token's log-probability may differ between writing and reading it, in half precision."""


@dataclass(frozen=True)
class Served:
    """A model behind a URL: `model` is the id that is asked, `base` the one without the adapter.

    `lacking` says of each ability that the server hasn't why not.
    """

    client: HttpClient
    model: str
    base: str
    adapter: Path | None
    fingerprint: str
    own_server: bool
    """Whether this is a server that answers a probe alike every time, such as vLLM, and not a company's."""
    lacking: Mapping[Ability, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    image_side: int = 0

    @property
    def name(self) -> str:
        """The model's id, its adapter and where it is served."""
        adapter = f" with {self.adapter}" if self.adapter else ""
        return f"{self.base}{adapter} at {self.client.place}"


def find_out(settings: ServedSettings, url: str, model: str, adapter: Path | None = None) -> Served:
    """Ask a server what it is and can do, and give it the adapter under a new name.

    Raises UserError for a server that is gone, refuses the key, doesn't know the model, or can't have the adapter.
    """
    adapter = None if adapter is None else fetched_adapter(adapter)
    check_url(url, "generator")
    read_key(settings.key_variable)
    client = HttpClient(
        url,
        settings.key_variable,
        settings.concurrency,
        settings.timeout,
        settings.tries,
        settings.first_wait,
        "generator",
    )
    served = Served(
        client, model, model, None, "", False, extra=read_extra(settings.extra_body), image_side=settings.image_side
    )
    try:
        return client.run(_find_out(served, adapter))
    except CallError as error:
        raise UserError(f"{error}. Start the server, or mend --generator.url and --generator.model.") from error


async def _find_out(served: Served, adapter: Path | None) -> Served:
    await _require_listed(served)
    own = await _is_own_server(served.client)
    if adapter is not None:
        served = dataclasses.replace(served, model=await _with_adapter(served.client, adapter), adapter=adapter)
    served = dataclasses.replace(served, own_server=own)
    first = await complete(served, served.model, _probe({}))
    lacking = dict.fromkeys(LOCAL_ONLY, "only the model in this process can")
    for need, trial in (
        (Ability.TEXTS, _sees),
        (Ability.FIRST_TOKENS, _tells_first_tokens),
        (Ability.SCORES, _scores),
        (Ability.CONTINUE, _continues),
        (Ability.STOP, _keeps_stops),
        (Ability.TOP_K, _takes_top_k),
    ):
        try:
            why = await trial(served, first)
        except (CallError, UserError, BadReplyError) as error:
            why = " ".join(str(error).split())[:200]
        if why:
            lacking[need] = why
    return dataclasses.replace(served, lacking=lacking, fingerprint=await fingerprint_of(served))


def refusal(who: str, name: str, lacking: Mapping[Ability, str]) -> str:
    """What a user is told who wants of a server what it can't."""
    each = "; ".join(f"it can't {need.value} ({why.rstrip('.')})" for need, why in lacking.items())
    ways = {
        Ability.UNCLIPPED_PIXELS: "Take noise on pixels, as in --settings.view noise:450:pixels.",
        Ability.EMBED: "Take --settings.retrieve-by thumbnails.",
        Ability.SCORES: "vLLM can, with its /tokenize and prompt_logprobs.",
        Ability.CONTINUE: "vLLM and SGLang can.",
        Ability.STOP: "vLLM and SGLang can.",
    }
    way = " ".join(dict.fromkeys(ways[need] for need in lacking if need in ways))
    return f"{who} needs more than {name} has: {each}. {way + ' ' if way else ''}Or leave out --generator.url."


async def complete(
    served: Served, model: str, fields: Mapping[str, Any], retried: Callable[[], None] = lambda: None
) -> chat.Completion:
    """A chat completion. Raises CallError without one, and UserError where going on is no use.

    A server that was started again has lost the adapter that it was given, and is given it again.
    """

    async def body(refused: frozenset[str]) -> bytes:
        return await asyncio.to_thread(chat.body_of, model, fields, refused, served.extra)

    unknown = f"knows no model {model!r}, or has no chat completions"

    async def asked() -> chat.Completion:
        return await served.client.call(
            COMPLETIONS, body, chat.read_completion, next_refused=chat.next_refused, retried=retried, unknown=unknown
        )

    try:
        return await asked()
    except UnknownError:
        if served.adapter is None or model != served.model:
            raise
        await _with_adapter(served.client, served.adapter)
        return await asked()


async def score(
    served: Served, completed: Complete, prompt: Sequence[Message], images: Sequence[str], text: str
) -> tuple[float, ...]:
    """Log-probabilities of a text's tokens as the answer, the end of the turn's last.

    Where the answer begins and ends is counted in tokens without the images, which are the same before it and with it.
    """
    asked, continued, whole = await asyncio.gather(
        _tokens(served, chat.messages(prompt, ()), {"add_generation_prompt": True}),
        _tokens(served, chat.messages(prompt, (), text), chat.CONTINUED),
        _tokens(served, chat.messages(prompt, (), text), chat.WHOLE),
    )
    if continued[: len(asked)] != asked or whole[: len(continued)] != continued or len(whole) == len(continued):
        message = "its chat template writes an answer otherwise than after the prompt, or doesn't mark its end"
        raise CallError(f"{served.name}: {message}", "generator-template", "score with the local model")
    fields = {"messages": chat.messages(prompt, images, text), **chat.WHOLE, "prompt_logprobs": 0, "max_tokens": 1}
    told = (await completed({**fields, "temperature": 0.0})).prompt
    if len(told) < len(whole):
        raise CallError(f"{served.name}: gives no prompt_logprobs", "generator-no-scores", "take vLLM")
    start = len(told) - (len(whole) - len(asked))
    wanted = whole[len(asked) : len(continued) + 1]
    scores = [entry.get(token) for token, entry in zip(wanted, told[start:], strict=False)]
    if any(score is None for score in scores):
        raise CallError(f"{served.name}: its prompt_logprobs are of other tokens", "generator-no-scores", "take vLLM")
    return tuple(score for score in scores if score is not None)


async def first_tokens(served: Served, prompt: Sequence[Message], texts: Sequence[str]) -> list[str]:
    """What vLLM calls each text's first token as the answer's, with `return_tokens_as_token_ids`."""
    asked, *each = await asyncio.gather(
        _tokens(served, chat.messages(prompt, ()), {"add_generation_prompt": True}),
        *(_tokens(served, chat.messages(prompt, (), text), chat.CONTINUED) for text in texts),
    )
    return [
        f"token_id:{ids[len(asked)]}" if len(ids) > len(asked) else text for ids, text in zip(each, texts, strict=True)
    ]


async def _tokens(served: Served, conversation: Sequence[Any], fields: Mapping[str, Any]) -> tuple[int, ...]:
    body = json.dumps({"model": served.model, "messages": conversation, **fields}).encode()
    status, content = await served.client.ask("POST", "//tokenize", body)
    if status != 200:
        raise CallError(f"{served.name}: has no /tokenize (status {status})", "generator-no-scores", "take vLLM")
    return chat.read_tokens(content)


async def fingerprint_of(served: Served) -> str:
    """SHA-256 over what tells this model from others: its id, adapter and answer to the probe.

    A company's endpoint needn't answer alike twice, so there it is the URL and the id.
    """
    known: dict[str, Any] = {"model": served.base, "extra": dict(served.extra), "image_side": served.image_side}
    if served.adapter is not None:
        known["adapter"] = content_digest(served.adapter)
    if served.own_server:
        known["probe"] = (await complete(served, served.model, _probe({}))).answers[0].text
    else:
        known["url"] = served.client.place
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def give_back(served: Served) -> None:
    """Have the server drop the adapter that it was given for this run, so that its memory is free for others."""
    if served.adapter is not None:
        body = json.dumps({"lora_name": served.model}).encode()
        try:
            served.client.run(_post_either(served.client, "unload_lora_adapter", body))
        except (CallError, UserError):
            return  # A server that is gone holds nothing.


def _probe(more: Mapping[str, Any], answer: str | None = None, picture: bool = True) -> dict[str, Any]:
    context = example(QUESTION)
    shown = chat.messages(context.prompt, data_urls(context) if picture else (), answer)
    return {"messages": shown, "max_tokens": PROBE_TOKENS, "temperature": 0.0, **more}


async def _require_listed(served: Served) -> None:
    """Raise UserError for a server that lists its models, and this one not."""
    status, content = await served.client.ask("GET", "/models")
    listed = _ids(content) if status == 200 else []
    if listed and served.model not in listed and await _is_own_server(served.client):
        raise UserError(
            f"{served.client.place}: serves no model {served.model!r}; it has {', '.join(listed[:8])}. Give one of "
            "these as --generator.model."
        )


def _ids(content: bytes) -> list[str]:
    try:
        return [str(row["id"]) for row in json.loads(content)["data"]]
    except (ValueError, KeyError, TypeError):
        return []


async def _is_own_server(client: HttpClient) -> bool:
    """Whether this is vLLM or SGLang, which tell their version or model: a model that stays what it is."""
    for path in ("//version", "//get_model_info"):
        status, content = await client.ask("GET", path)
        if status == 200 and content.lstrip().startswith(b"{"):
            return True
    return False


async def _with_adapter(client: HttpClient, adapter: Path) -> str:
    """Give the server an adapter, and return the name that it has there: new for new weights, by which caches go.

    Raises UserError for an adapter that no server takes, and a server that takes none.
    """
    refuse_adapter(adapter)
    name = f"veridical-{str(content_digest(adapter))[:16]}"
    body = json.dumps({"lora_name": name, "lora_path": str(adapter.resolve())}).encode()
    status, said = await _post_either(client, "load_lora_adapter", body)
    if status != 200 and b"already" not in said:
        detail = client.without_key(said[:200].decode(errors="replace"))
        raise UserError(
            f"{client.place}: doesn't take the adapter {adapter} (status {status}: {detail}). Start vLLM with "
            "--enable-lora --max-lora-rank 64 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True (SGLang with --enable-lora) "
            "where it reads the same disk; or load the adapter there by hand and give its name as --generator.model."
        )
    return name


def refuse_adapter(adapter: Path) -> None:
    """Raise UserError for an adapter that no server loads: one on answers only, or with a whole projector."""
    try:
        config = read_json(adapter / "adapter_config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"{adapter} holds no adapter ({error}); give a folder in PEFT's layout.") from error
    if config.get("alora_invocation_tokens"):
        raise UserError(
            f"{adapter} acts on answers only (activated LoRA), which vLLM and SGLang can't serve. Train a plain LoRA "
            "from the same pairs and reference scores: `veridical align` with --lora.acts-on everything and the same "
            "--reference-cache."
        )
    if config.get("modules_to_save") or config.get("target_parameters"):
        raise UserError(
            f"{adapter} holds more than LoRA on linear layers (a projector, or experts), which servers don't load. "
            "Serve the merged model instead, or train with lora.train_projector off."
        )


async def _post_either(client: HttpClient, path: str, body: bytes) -> tuple[int, bytes]:
    """vLLM's place for a request, or SGLang's."""
    status, said = await client.ask("POST", f"/{path}", body)
    return (status, said) if status != 404 else await client.ask("POST", f"//{path}", body)


async def _sees(served: Served, first: chat.Completion) -> str:
    """Why the server doesn't look at images; empty if it does. One that doesn't count tokens is believed."""
    blind = await complete(served, served.model, _probe({"max_tokens": 1}, picture=False))
    counted = first.prompt_tokens and blind.prompt_tokens
    return "the prompt is as long without the picture" if counted and first.prompt_tokens <= blind.prompt_tokens else ""


async def _tells_first_tokens(served: Served, _: chat.Completion) -> str:
    told = (await complete(served, served.model, _probe(chat.FIRST_TOKEN))).answers[0]
    if not told.tokens or not told.tokens[0][2]:
        return "it gives no top_logprobs"
    wrong = chat.why_dishonest(told)
    return f"its log-probabilities can't be true: {wrong}" if wrong else ""


async def _scores(served: Served, _: chat.Completion) -> str:
    """Compare what the server says of a text that it writes with what it says of the same text when it reads it."""
    written = (await complete(served, served.model, _probe({"logprobs": True, "top_logprobs": 1}))).answers[0]
    context = example(QUESTION)

    async def of_model(fields: Mapping[str, Any]) -> chat.Completion:
        return await complete(served, served.model, fields)

    read = await score(served, of_model, context.prompt, data_urls(context), written.text)
    if not await _marks_end(served, context.prompt):
        return "its chat template doesn't mark an answer's end"
    compared = list(zip(written.tokens, read, strict=False))
    if not compared:
        return "it gives no log-probabilities of what it writes"
    apart = max(abs(value - again) for (_token, value, _likeliest), again in compared)
    if not apart <= _TOLERANCE or any(log_prob > 1e-4 for log_prob in read):
        return f"its log-probabilities of one text differ by {apart:.2g} between writing and reading it"
    return ""


async def _marks_end(served: Served, prompt: Sequence[Message]) -> bool:
    """Whether a token that is no space follows an answer, which is then the end of the turn."""
    continued = await _tokens(served, chat.messages(prompt, (), "A"), chat.CONTINUED)
    whole = await _tokens(served, chat.messages(prompt, (), "A"), chat.WHOLE)
    end = whole[len(continued) : len(continued) + 1]
    body = json.dumps({"model": served.model, "tokens": end}).encode()
    status, content = await served.client.ask("POST", "//detokenize", body)
    if not end or status != 200:
        return False
    return bool(str(json.loads(content).get("prompt", "")).strip())


async def _continues(served: Served, first: chat.Completion) -> str:
    continued = await complete(served, served.model, _probe({**chat.CONTINUED, "max_tokens": 1}, "A"))
    anew = await complete(served, served.model, _probe({"max_tokens": 1}, "A"))
    if not continued.prompt_tokens:
        return "it doesn't say how many tokens a prompt has, so this can't be tried"
    fits = first.prompt_tokens < continued.prompt_tokens < anew.prompt_tokens
    return "" if fits else "it passes over continue_final_message"


async def _keeps_stops(served: Served, first: chat.Completion) -> str:
    word = re.search(r"\w", first.answers[0].text.strip()[1:])
    if word is None:
        return "its answer to a probe is too short to try this"
    stop = word[0]
    fields = {"stop": [stop], "include_stop_str_in_output": True, "no_stop_trim": True}
    told = (await complete(served, served.model, _probe(fields))).answers[0].text
    return "" if told.strip().endswith(stop) else "it leaves the text out"


async def _takes_top_k(served: Served, first: chat.Completion) -> str:
    drawn = await complete(served, served.model, _probe({"temperature": 2.0, "top_k": 1, "seed": 1}))
    same = drawn.answers[0].text == first.answers[0].text
    return "" if same else "it passes over top_k"
