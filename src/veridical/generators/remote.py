"""A model behind a URL: requests become chat completions, and what it was found able to do is what it is asked.

| request | as a chat completion |
|---|---|
| texts, N of them | `n`, or N calls where the server takes no `n`; greedy ones are asked for once |
| a text to continue | the last message is the assistant's, with `continue_final_message` |
| a text to stop after | `stop` with `include_stop_str_in_output` |
| log-probabilities of a text | `prompt_logprobs` of the prompt with the text as its answer |
| the first token's probabilities | `top_logprobs` of one token; what is not among them, by `prompt_logprobs` |
| the model without its adapter | the model's own id, beside the adapter's |
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from veridical.abilities import Ability
from veridical.constructions.protocol import Answer, LogProbs, Sample, Score, YesNo
from veridical.errors import UserError
from veridical.generators import chat, served
from veridical.generators.interface import Choose, GeneratorRequest, needs_of
from veridical.generators.pictures import data_urls
from veridical.generators.served import Served
from veridical.http_client import CallError, gather
from veridical.judges.messages import Usage
from veridical.judges.prompting import seed_of
from veridical.lanes import Lane
from veridical.vlm.inputs.context import Context


class GeneratorError(UserError):
    """A served model could not answer a request; `passing` says that it may well do so later."""

    def __init__(self, message: str, reason: str, remedy: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.reason, self.remedy, self.passing = reason, remedy, passing


@dataclass
class _Watched:
    """What a server has shown of itself so far."""

    model: str = ""
    broken: int = 0
    one_at_a_time: bool = False
    first_tokens: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteGenerator:
    """A served model, with an adapter that the server holds under a name of its own if there is one."""

    served: Served
    """What was found out about the server: `served.find_out`."""
    counts: Usage = field(default_factory=Usage)
    _watched: _Watched = field(default_factory=_Watched, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._watched.broken = self.served.client.learnt.broken

    @property
    def name(self) -> str:
        """The model's id; the pairs don't depend on where it is served."""
        return f"{self.served.base} (served)"

    @property
    def about(self) -> str:
        """The model's id, its adapter and where it is served, without what may be secret in the URL."""
        return self.served.name

    @property
    def fingerprint(self) -> str:
        """The model's, and that of what it answers to a probe."""
        return self.served.fingerprint

    @property
    def lane(self) -> Lane:
        """The endpoint's own."""
        return Lane(self.about, self.served.client.concurrency)

    def lacking(self, needs: Iterable[Ability]) -> Mapping[Ability, str]:
        """Those of the abilities that the server hasn't, with the reasons."""
        return {need: self.served.lacking[need] for need in sorted(set(needs)) if need in self.served.lacking}

    def expect(self, requests: Iterable[Any]) -> None:
        """Images are sent as files."""

    def usage(self) -> dict[str, Any]:
        """The calls and tokens so far."""
        return {"generator": self.counts.plain()} if self.counts.calls else {}

    def add_usage(self, earlier: Mapping[str, Any]) -> None:
        """Count on from an earlier part of the same run."""
        self.counts.add(earlier.get("generator", {}))

    def clear_usage(self) -> None:
        """Count from nothing."""
        self.counts.clear()

    def close(self) -> None:
        """Have the server forget the adapter that it was given."""
        served.give_back(self.served)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Answers to requests, all asked at the same time, with the error in place of those that have none."""
        answers: list[Any] = [None] * len(requests)

        def done(place: int, answer: Any) -> None:
            answers[place] = answer

        self.each(requests, done)
        return answers

    def each(self, requests: Sequence[GeneratorRequest], done: Callable[[int, Any], None]) -> None:
        """Answer requests at the same time, and say each answer, or its error, as it comes."""
        for request in requests:
            self._refuse(request)
        self.served.client.run(self._each(requests, done))

    def _refuse(self, request: GeneratorRequest) -> None:
        """Raise UserError for what the server can't: a user's own construction needn't have said what it needs."""
        if lacking := self.lacking(needs_of(request)):
            raise UserError(served.refusal("This run", self.about, lacking))

    async def _each(self, requests: Sequence[GeneratorRequest], done: Callable[[int, Any], None]) -> None:
        async def one(place: int) -> None:
            request = requests[place]
            failure: GeneratorError | None = None
            try:
                answer = await self._one(request)
                await self._require_same_server()
            except CallError as error:
                remedy = error.remedy or "leave the record out"
                failure = GeneratorError(str(error), error.reason, remedy, passing=error.passing)
            except UserError as error:
                if not hasattr(error, "reason"):  # else it is an image's or a prompt's fault
                    raise
                answer = error
            done(place, failure or answer)
            self.served.client.note(failure)

        places = iter(range(len(requests)))

        async def work() -> None:
            for place in places:
                await one(place)

        # Images wait with their requests: no more of them than keep the server busy.
        await gather([work() for _ in range(min(len(requests), 2 * self.served.client.concurrency))])

    async def _one(self, request: GeneratorRequest) -> Any:
        images = await asyncio.to_thread(data_urls, request.context, self.served.image_side)
        match request:
            case Sample():
                return await self._sample(request, images)
            case Score(context=context, texts=texts):
                return await gather([self._log_probs(context, images, text) for text in texts])
            case YesNo(context=context):
                yes, no = await self._first(context, images, ("Yes", "No"))
                return _share(yes, no)
            case Choose(context=context, choices=choices):
                return await self._first(context, images, choices)

    async def _sample(self, request: Sample, images: Sequence[str]) -> list[Answer]:
        """Answers in the order of the keys; those that continue one text are asked for together."""
        groups: dict[str, list[int]] = {}
        for place in range(len(request.keys)):
            groups.setdefault(request.after[place] if request.after else "", []).append(place)
        drawn = await gather([self._together(request, images, after, places) for after, places in groups.items()])
        by_key: dict[int, Answer] = {}
        for (after, places), told in zip(groups.items(), drawn, strict=True):
            for place, answer in zip(places, told, strict=True):
                by_key[place] = Answer(answer.text.rstrip() if after else answer.text.strip(), answer.finished)
        return [by_key[place] for place in range(len(request.keys))]

    async def _together(
        self, request: Sample, images: Sequence[str], after: str, places: Sequence[int]
    ) -> list[chat.Told]:
        """One answer for each of these places of the keys."""
        greedy = request.sampling.temperature == 0
        keys = [request.keys[place] for place in (places[:1] if greedy else places)]
        if len(keys) > 1 and self._watched.one_at_a_time:
            each = await gather([self._together(request, images, after, [place]) for place in places])
            return [told for one in each for told in one]
        seed = seed_of([part for key in keys for part in ("sample", *key)])
        fields = {
            "messages": chat.messages(request.context.prompt, images, after or None),
            **chat.sampled(request.sampling, len(keys), seed),
            **(chat.CONTINUED if after else {}),
        }
        told = (await self._complete(fields)).answers
        if len(told) < len(keys):
            # A server that passes over `n`.
            self._watched.one_at_a_time = True
            return await self._together(request, images, after, places)
        return [told[0]] * len(places) if greedy else list(told)

    async def _log_probs(self, context: Context, images: Sequence[str], text: str) -> LogProbs:
        policy = await served.score(self.served, self._complete, context.prompt, images, text)
        if self.served.adapter is None:
            return LogProbs(policy, policy)
        base = await served.score(self.served, self._of_base, context.prompt, images, text)
        return LogProbs(policy, base)

    async def _first(self, context: Context, images: Sequence[str], choices: Sequence[str]) -> tuple[float, ...]:
        can_score = Ability.SCORES not in self.served.lacking
        names = await self._first_tokens(context, choices) if can_score else choices
        by_id = {"return_tokens_as_token_ids": True} if can_score else {}
        asked = {"messages": chat.messages(context.prompt, images), **chat.FIRST_TOKEN, **by_id}
        told = (await self._complete(asked)).answers[0]
        probabilities: list[float | None] = [*chat.first_of(names, told.tokens[0][2] if told.tokens else {})]
        for place, value in enumerate(probabilities):
            if value is None and not can_score:
                raise CallError(
                    f"{self.about}: {choices[place]!r} is not among the {chat.MOST_LIKELY} likeliest first tokens",
                    "generator-choice-unlikely",
                    "leave the question out, or take a server with prompt_logprobs, such as vLLM",
                )
            if value is None:
                scored = await served.score(self.served, self._complete, context.prompt, images, choices[place])
                probabilities[place] = scored[0]
        return tuple(value for value in probabilities if value is not None)

    async def _first_tokens(self, context: Context, choices: Sequence[str]) -> list[str]:
        """What the server calls the first tokens of these texts, which is asked once for each."""
        known = self._watched.first_tokens
        if unknown := [text for text in choices if text not in known]:
            known |= zip(unknown, await served.first_tokens(self.served, context.prompt, unknown), strict=True)
        return [known[text] for text in choices]

    async def _complete(self, fields: Mapping[str, Any]) -> chat.Completion:
        """A completion of the model with its adapter."""
        return await self._asked(self.served.model, fields)

    async def _of_base(self, fields: Mapping[str, Any]) -> chat.Completion:
        """A completion of the model without its adapter."""
        return await self._asked(self.served.base, fields)

    async def _asked(self, model: str, fields: Mapping[str, Any]) -> chat.Completion:
        def retried() -> None:
            self.counts.retries += 1

        completion = await served.complete(self.served, model, fields, retried)
        self.counts.calls += 1
        self.counts.prompt_tokens += completion.prompt_tokens
        self.counts.completion_tokens += completion.completion_tokens
        self.counts.left_out |= self.served.client.learnt.refused
        if model == self.served.model:
            self._refuse_other_model(completion.model)
        return completion

    def _refuse_other_model(self, says: str) -> None:
        before, self._watched.model = self._watched.model, self._watched.model or says
        if before and says and says != before:
            raise UserError(
                f"{self.about}: answered as {before!r} at first, and now as {says!r}. What was made is kept: have the "
                "first model served again, and run the same command."
            )

    async def _require_same_server(self) -> None:
        """Ask the probe again after a connection broke: another model may be served since."""
        broken = self.served.client.learnt.broken
        if broken == self._watched.broken:
            return
        now = await served.fingerprint_of(self.served)
        if now != self.served.fingerprint:
            raise UserError(
                f"{self.about}: after a connection broke, the server answers otherwise than before: another model is "
                "served, or the same with other settings. What was made is kept: serve it as it was, and run the same "
                "command, or give --out a new folder."
            )
        self._watched.broken = broken


def _share(yes: float, no: float) -> float:
    """The probability of a yes among yes and no."""
    return 1 / (1 + math.exp(no - yes))
