"""Settings of the judges that are models: which model, where it runs, and what a call may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from veridical.bounds import AboveZero, Natural, NotNegative, Positive
from veridical.errors import UserError
from veridical.judges.cache import Cache
from veridical.judges.language import LanguageJudge
from veridical.judges.messages import Backend, Service
from veridical.judges.prompting import CallSettings
from veridical.runs import INCIDENTAL
from veridical.store import default_folder

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext


@dataclass(frozen=True)
class ServiceSettings:
    """A language or vision-language model, at an OpenAI-compatible endpoint or local."""

    model: str = ""
    """The model's id at the endpoint; or, without a url, a local model by folder or hub name."""
    url: str = field(default="", metadata=INCIDENTAL)
    """The endpoint, such as http://localhost:8000/v1; left out, the model runs in this process."""
    key_variable: str = field(default="OPENAI_API_KEY", metadata=INCIDENTAL)
    """The environment variable that holds the endpoint's key. Keys are read from nowhere else."""
    concurrency: Positive = field(default=8, metadata=INCIDENTAL)
    """Calls under way at a time."""
    timeout: AboveZero = field(default=120.0, metadata=INCIDENTAL)
    """Seconds until a call without a whole answer is tried again."""
    tries: Positive = field(default=6, metadata=INCIDENTAL)
    """How often a call is tried that fails for a reason that may pass."""
    first_wait: NotNegative = field(default=1.0, metadata=INCIDENTAL)
    """Seconds before the second try; the wait doubles with each try."""
    price_in: NotNegative = field(default=0.0, metadata=INCIDENTAL)
    """What a million prompt tokens cost, for the manifest."""
    price_out: NotNegative = field(default=0.0, metadata=INCIDENTAL)
    """What a million completion tokens cost."""
    extra_body: str = ""
    """JSON object of further fields for every request to the endpoint, such as {"chat_template_kwargs":
    {"enable_thinking": false}} or a guided JSON schema; null leaves a field out."""
    image_side: Natural = 2048
    """Images with a longer side are scaled down to this many pixels before they are sent to an endpoint; 0 sends all
    as they are."""
    cache: Path | None = field(default=None, metadata=INCIDENTAL)
    """Where replies are kept; by default in the user's cache folder, for all runs."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where a local model runs: auto, cpu, cuda, ...."""


def open_service(settings: ServiceSettings, sees: bool) -> Service:
    """The service that settings describe, with its cache. Raises UserError where that is not possible."""
    if not settings.model:
        raise UserError("A judge that is a model needs --judge.model: an id at --judge.url, a folder or a hub name.")
    return Service(_backend(settings, sees), Cache(settings.cache or default_folder()))


@dataclass(frozen=True)
class WritingSettings(ServiceSettings):
    """A model that judges in words, and writes."""

    max_tokens: Positive = 1024
    """Longest answer of the judge, in tokens."""
    temperature: NotNegative = 0.0
    """Temperature of judgements."""
    writing_temperature: NotNegative = 0.8
    """Temperature of made-up errors and of restyling."""

    def judge(self, sees: bool) -> LanguageJudge:
        """The judge; `sees` says whether it is shown the images."""
        settings = CallSettings(self.max_tokens, self.temperature)
        return LanguageJudge(open_service(self, sees), settings, self.writing_temperature)


@dataclass(frozen=True)
class LanguageModelSettings(WritingSettings):
    """Ask a language model, which goes by annotations and references."""

    name: Literal["language-model"] = "language-model"
    """Which judge: a language model, local or at a URL; it does not see the images."""

    def open(self, context: JudgeContext) -> LanguageJudge:
        """The judge."""
        return self.judge(sees=False)


@dataclass(frozen=True)
class VisionLanguageModelSettings(WritingSettings):
    """Ask a vision-language model, which sees the images."""

    name: Literal["vision-language-model"] = "vision-language-model"
    """Which judge: a vision-language model, local or at a URL; it sees the images."""

    def open(self, context: JudgeContext) -> LanguageJudge:
        """The judge."""
        return self.judge(sees=True)


def _backend(settings: ServiceSettings, sees: bool) -> Backend:
    if settings.url:
        from veridical.http_client import check_url, read_key
        from veridical.judges.endpoint import Endpoint, read_extra

        check_url(settings.url)
        read_key(settings.key_variable)
        return Endpoint(
            settings.url,
            settings.model,
            sees,
            settings.key_variable,
            settings.concurrency,
            settings.timeout,
            settings.tries,
            settings.first_wait,
            settings.price_in,
            settings.price_out,
            read_extra(settings.extra_body),
            settings.image_side if sees else 0,
        )
    if settings.extra_body:
        raise UserError("extra_body goes to an endpoint; give --judge.url, or leave it out for a local model.")
    if sees:
        from veridical.judges.local import LocalVision
        from veridical.vlm.load import load

        return LocalVision(load(settings.model, device=settings.device))
    from veridical.judges.local import load_language_model

    return load_language_model(settings.model, settings.device)
