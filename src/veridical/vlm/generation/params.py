"""What a caller says about generation: the texts to sample, how they are sampled, and by which method of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from annotated_types import Gt, Le

from veridical.bounds import Natural, NotNegative, Positive, check
from veridical.vlm.images import views

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stream:
    """In what a stream differs from the one that is contrasted: the view of the images, a system turn, or both."""

    view: views.View | None = None
    system: str | None = None


class Decoding(Protocol):
    """A method of decoding: the streams it needs, and the logits it makes of theirs. A frozen dataclass."""

    @property
    def name(self) -> str:
        """The word that picks this method."""

    def streams(self) -> tuple[Stream, ...]:
        """The further streams."""

    def early_layers(self, layers: int) -> tuple[int, ...]:
        """The layers, of `layers`, whose own predictions are wanted: 0 is the embeddings, 1 the first layer."""

    def logits(self, own: Tensor, others: Sequence[Tensor], written: Tensor) -> Tensor:
        """Logits [rows, vocabulary] (fp32) of the next token, from those of the question as asked (`own`) and
        of the further streams and early layers (`others`, in the order declared), all shaped alike. `written` [rows]
        counts the answer's tokens so far.
        """


@dataclass(frozen=True)
class SamplingParams:
    """How answers are drawn from the model."""

    max_new_tokens: Positive = 256
    """An answer is cut off after this many tokens, end-of-turn included."""
    temperature: NotNegative = 1.0
    """Divides the logits before sampling; 0 always takes the likeliest token."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Sample only from the likeliest tokens that together reach this probability; 1 keeps all."""
    top_k: Natural = 0
    """Sample only from this many likeliest tokens; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """End an answer right after any of these texts appears in it; the text found stays in the answer."""
    never: tuple[Natural, ...] = ()
    """Tokens that are never taken, such as those that stand for images."""
    diversity: NotNegative = 0.0
    """Greedy group beam search with one beam a group (Vijayakumar et al. 2016, arXiv 1610.02424): answers that begin
    alike are written side by side, and each takes the likeliest token after this much was taken off the
    log-probability of every token for each answer before it that takes it in the same step, whatever the temperature;
    0 writes each by itself."""
    decoding: Decoding | None = None
    """How the next token's logits are made, where not by the model alone; see `veridical.decoding`."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Branch:
    """One text to sample: which context it answers, the key of its random numbers, and the text it goes on
    from.
    """

    context: int
    key: tuple[str | int, ...] = ()
    after: str = ""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled text, without the prefix it continues and without the end of its turn.

    `ended` says what ended it: the model, by ending its turn; one of the `stop` texts; or the limit on its
    length, which cut it off. `tokens` counts the new tokens before the end of the turn. `ids` are the tokens as they
    were drawn, with the one that ended the turn; encoding the text again may give others.
    """

    text: str
    ended: Literal["turn", "stop", "length"]
    tokens: int
    ids: tuple[int, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the text is whole, rather than cut off."""
        return self.ended != "length"
