"""Settings of a generator: the model in this process, or one that is served."""

from __future__ import annotations

from dataclasses import dataclass, field

from veridical.bounds import AboveZero, Natural, NotNegative, Positive
from veridical.errors import UserError
from veridical.runs import INCIDENTAL


@dataclass(frozen=True)
class ServedSettings:
    """How a served model is asked."""

    key_variable: str = field(default="OPENAI_API_KEY", metadata=INCIDENTAL)
    """The environment variable that holds the endpoint's key. Keys are read from nowhere else."""
    concurrency: Positive = field(default=32, metadata=INCIDENTAL)
    """Calls under way at a time."""
    timeout: AboveZero = field(default=300.0, metadata=INCIDENTAL)
    """Seconds until a call without a whole answer is tried again."""
    tries: Positive = field(default=6, metadata=INCIDENTAL)
    """How often a call is tried that fails for a reason that may pass."""
    first_wait: NotNegative = field(default=1.0, metadata=INCIDENTAL)
    """Seconds before the second try; the wait doubles with each try."""
    extra_body: str = ""
    """JSON object of further fields for every request, such as {"chat_template_kwargs": {"enable_thinking": false}}."""
    image_side: Natural = 0
    """Images with a longer side are scaled down to this many pixels before they are sent; 0 sends all as they are."""


@dataclass(frozen=True)
class GeneratorSettings(ServedSettings):
    """Who generates: the model in this process, or one at a URL."""

    url: str = field(default="", metadata=INCIDENTAL)
    """An OpenAI-compatible endpoint (vLLM, SGLang, ...), such as http://localhost:8000/v1, that generates in the place
    of --model, which is then not loaded."""
    model: str = ""
    """The model's id at the endpoint."""

    def __post_init__(self) -> None:
        if bool(self.url) != bool(self.model):
            lacks = "--generator.model, the model's id there" if self.url else "--generator.url, where it is served"
            raise UserError(f"A generator that is served needs {lacks}.")

    @property
    def is_served(self) -> bool:
        """Whether the model is at a URL."""
        return bool(self.url)
