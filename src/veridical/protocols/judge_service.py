"""Gets a judge's texts from a model: at an OpenAI-compatible endpoint, or in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.files import write_json_lines
from veridical.protocols.judging import Judgements, JudgementSettings, JudgePrompt, Template

if TYPE_CHECKING:
    from veridical.judges.interface import JudgeError
    from veridical.judges.messages import Call, Reply, TextService
    from veridical.records import ImageFile


ROUNDS = 4
"""Calls between two updates of the progress, in multiples of those under way at a time."""


@dataclass(frozen=True)
class JudgeParams:
    """How a benchmark asks its judge; where `usable` says no to a text, warmer and with a hint, up to `tries` times."""

    max_tokens: int
    temperature: float
    usable: Callable[[str], bool] = lambda text: True
    hint: str = ""
    tries: int = 5
    warmer: float = 0.5


def write_prompts(path: Path, prompts: Sequence[JudgePrompt], made_from: Template, params: JudgeParams) -> None:
    """The prompts with what a judge's service needs to know; whole or not at all."""
    common = {"system": made_from.system, "max_tokens": params.max_tokens, "temperature": params.temperature}
    rows = ({"id": p.id, "template": made_from.hash, "prompt": p.text, "image": p.image, **common} for p in prompts)
    write_json_lines(path, rows)


def ask_judge(
    settings: JudgementSettings, prompts: Sequence[JudgePrompt], made_from: Template, params: JudgeParams
) -> Judgements:
    """One text for each prompt. Prompts without a reply after all tries are named in the faults.

    Replies are kept in the user's cache, so an interrupted run goes on where it was.

    Raises:
        UserError: there is no such model, or images that the judge should see are missing.
    """
    from veridical.judges.interface import JudgeError
    from veridical.judges.models import open_service

    service = open_service(settings.service, sees=settings.judge_sees)
    images = [_image(settings, prompt) for prompt in prompts]
    calls = [_call(p, i, made_from, params) for p, i in zip(prompts, images, strict=True)]
    texts: dict[str, list[str]] = {}
    failed = []
    for prompt, reply in zip(prompts, _replies(service, calls, settings.service.concurrency), strict=True):
        if isinstance(reply, JudgeError):
            failed.append(f"{prompt.id}: {reply}")
        else:
            texts[prompt.id] = [reply.text]
    tries = params.tries if settings.judge_tries is None else settings.judge_tries
    _ask_again(service, dict(zip((p.id for p in prompts), calls, strict=True)), texts, replace(params, tries=tries))
    judge = {"name": service.name + (" (sees the image)" if settings.judge_sees else ""), "prompt": made_from.hash}
    if settings.save_judgements:
        _save(settings.save_judgements, prompts, texts, judge)
    return Judgements(judge, texts, {"judge_failed": failed} if failed else {})


def _replies(service: TextService, calls: Sequence[Call], at_a_time: int) -> list[Reply | JudgeError]:
    """The replies, some rounds of calls after another, with the time left."""
    from veridical.progress import Line

    replies: list[Reply | JudgeError] = []
    size = ROUNDS * at_a_time
    with Line("judgements", len(calls)) as line:
        for start in range(0, len(calls), size):
            replies += service.reply(calls[start : start + size])
            line.advance(len(replies) - start)
    return replies


def _ask_again(service: TextService, calls: dict[str, Call], texts: dict[str, list[str]], params: JudgeParams) -> None:
    """Replace texts that are of no use, as MM-Vet's official scorer does."""
    from veridical.judges.messages import Reply

    for attempt in range(1, params.tries + 1):
        bad = [key for key, replies in texts.items() if not params.usable(replies[0])]
        if not bad:
            return
        again = []
        for key in bad:
            *before, last = calls[key].messages
            hinted = replace(last, text=last.text + params.hint)
            warmer = params.temperature + params.warmer * (attempt - 1)
            again.append(replace(calls[key], messages=(*before, hinted), temperature=warmer, seed=attempt))
        for key, reply in zip(bad, service.reply(again), strict=True):
            if isinstance(reply, Reply):
                texts[key] = [reply.text]


def _call(prompt: JudgePrompt, image: ImageFile | None, made_from: Template, params: JudgeParams) -> Call:
    from veridical.judges.messages import Call, ChatMessage

    system = (ChatMessage("system", made_from.system),) if made_from.system else ()
    user = ChatMessage("user", prompt.text, (image,) if image else ())
    return Call((*system, user), params.max_tokens, params.temperature, prompt=made_from.hash)


def _image(settings: JudgementSettings, prompt: JudgePrompt) -> ImageFile | None:
    """The image of a prompt, where the judge sees them."""
    if not settings.judge_sees:
        return None
    from veridical.formats.rows import UnusableError, checked_image, inside

    if settings.judge_images is None or not prompt.image:
        raise UserError("--judge-sees: needs --judge-images, a folder with the images that the questions name.")
    try:
        return checked_image(inside(settings.judge_images, settings.judge_images / prompt.image))
    except UnusableError as error:
        raise UserError(f"{settings.judge_images}: {error.detail}; {error.remedy.rstrip('.')}.") from error


def _save(path: Path, prompts: Sequence[JudgePrompt], texts: dict[str, list[str]], judge: dict[str, str]) -> None:
    """The texts as `--judgements` reads them again."""
    common = {"judge": judge["name"], "template": judge["prompt"]}
    rows = ({"id": p.id, **common, "prompt": p.text, "text": texts[p.id][0]} for p in prompts if p.id in texts)
    write_json_lines(path, rows)
