"""Over-trust Penalty and Retrospection-Allocation (OPERA), arXiv 2311.17911, sections 3.2 and 3.3.

    p(token) = softmax over a beam's candidates of (logit - alpha * phi)
    phi = max over j of prod over i >= j of (sigma * w_ij)

w_ij is how much token i attends to token j in the last layer, the candidate being the last i: the largest of all heads,
divided by the row's sum. Only tokens of the answer count. A column of large weights is a token that all later ones lean
on, a summary, instead of the image. Each beam's candidates are its likeliest tokens. Where the largest column has been
at one place s for `overlap` of the last tokens, the search goes back to what was written up to s and goes on by other
candidates; after `rollbacks` times there, to what was written before s. s never moves to an earlier place.

The paper speaks of one text. With beams, as in the released code, all go back together, once all agree on s, and what
each chose at that place is left out. The search is transformers' (scores divided by length, no early stopping). The
released code departs from the paper, and this file, but for the first point, keeps to the paper:

- it multiplies phi by 1e-7, without which a single weight would outweigh the logits; `unit` here;
- for the first ten tokens the candidate's attention to the image replaces -phi;
- the place noted for a token is the one that most candidates share, not the chosen one's, and stays with the beam's
  number when beams change places;
- it goes back to no place before the tenth token, and where more than 15 tokens agree, not 15; earlier places than
  before are allowed; and it then chooses from the whole vocabulary, without penalty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from veridical.bounds import AboveZero, Natural, NotNegative, Positive, check
from veridical.errors import UserError
from veridical.vlm.generation.params import Branch, Sampled, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.generation.params import Stream
    from veridical.vlm.generation.stepping import Row
    from veridical.vlm.model.attention import LastLayer
    from veridical.vlm.model.loading import Vlm
    from veridical.vlm.prefix.encode import Prefix

# exp of more would be infinite; such penalties rule each other out all the same.
_LARGEST_LOG = 700.0


@dataclass(frozen=True)
class Opera:
    """Beam search that turns away from texts that lean on a few of their own tokens.

    Contrasts with: nothing: beams that lean on a few of their own tokens are penalised, and go back.

    Costs: beams times candidates rows (25), eager attention.
    """

    name: Literal["opera"] = "opera"
    """The method."""
    beams: Positive = 5
    """Texts that are written side by side."""
    candidates: Annotated[int, Ge(2)] = 5
    """The likeliest tokens of each beam, among which the penalty decides."""
    alpha: NotNegative = 1.0
    """Weight of the penalty; 0 is a beam search among the candidates, with retrospection."""
    scale: AboveZero = 50.0
    """Sigma, which attention weights are multiplied by before their product is taken."""
    unit: AboveZero = 1e-7
    """The product is multiplied by this, as in the released code; 1 is the paper's formula to the letter."""
    window: Positive = 512
    """So many of the last tokens are looked at, for the penalty and for retrospection."""
    overlap: Annotated[int, Ge(2)] = 15
    """r: the text goes back where the maximum has been in the same place for so many tokens."""
    rollbacks: Natural = 5
    """Beta: how often it may go back to the same place; 0 is never."""

    def __post_init__(self) -> None:
        check(self)

    def streams(self) -> tuple[Stream, ...]:
        """None."""
        return ()


@dataclass(frozen=True, eq=False)
class Beam:
    """A text that is being written. `columns` [tokens] are the logarithms of the products down its tokens' columns, and
    `places` says for each token where the largest was when it was written.
    """

    row: Row
    columns: Tensor
    score: float = 0.0
    places: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Option:
    """A candidate: the beam it continues (by its place among the beams), its token, and the beam it makes."""

    origin: int
    token: int
    beam: Beam


@dataclass(frozen=True)
class Written:
    """The search at one length: its beams, and the best texts that have ended, with their scores per token."""

    beams: tuple[Beam, ...]
    ended: tuple[tuple[float, Sampled], ...] = ()


def opera(
    vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams, settings: Opera
) -> list[Sampled]:
    """The best text of each branch; equal branches have equal texts.

    Raises `UserError` for a temperature, and for a model that returns no attention weights.
    """
    import torch

    from veridical.vlm.model import attention
    from veridical.vlm.model.modes import evaluating

    if sampling.temperature:
        raise UserError(
            f"opera searches for the best text and draws none: temperature is {sampling.temperature}; it must be 0."
        )
    with torch.inference_mode(), evaluating(vlm.model), attention.shown(vlm) as seen:
        return [_search(vlm, prefix, branch, sampling, settings, seen) for branch in branches]


def _search(
    vlm: Vlm, prefix: Prefix, branch: Branch, sampling: SamplingParams, settings: Opera, seen: LastLayer
) -> Sampled:
    import torch

    from veridical.vlm.generation import decode
    from veridical.vlm.generation.rules import rules_of

    rules, device = rules_of(vlm, prefix), prefix.mask.device
    row = decode.begin(vlm, [prefix], branch, sampling)
    now = Written((Beam(row, torch.empty(0, dtype=torch.float64, device=device)),))
    stepper = decode.going_on(vlm, prefix, [row])
    retrospection = Retrospection(settings)
    while True:
        # Each candidate is read once: for its penalty, and to continue if it is chosen.
        own = stepper.logits.float()
        own = own if rules is None else rules(own, [beam.row for beam in now.beams])
        logits, tokens = own.double().topk(settings.candidates)
        stepper.keep_rows(torch.arange(len(now.beams), device=device).repeat_interleave(settings.candidates))
        seen.clear()
        stepper.advance(tokens.flatten())
        options = _options(now.beams, logits, tokens, seen.weights(), settings)
        left = retrospection.left(now, options)
        now, kept = _choose(vlm, sampling, settings, now, left)
        if not now.beams or _settled(now, settings):
            return now.ended[0][1]
        retrospection.took(kept)
        earlier = retrospection.back(summary_token(now.beams, settings))
        if earlier is None:
            stepper.keep_rows(torch.tensor([options.index(option) for option in kept], device=device))
        else:
            now = earlier
            stepper = decode.going_on(vlm, prefix, [beam.row for beam in now.beams])


def _options(beams: Sequence[Beam], logits: Tensor, tokens: Tensor, weights: Tensor, settings: Opera) -> list[Option]:
    """All candidates in the order of their rows, beam by beam.

    `logits` and `tokens` are [beams, candidates]; `weights` [beams * candidates, heads, keys] is what each candidate
    attends to.
    """
    import torch

    before = torch.stack([beam.columns for beam in beams]).repeat_interleave(tokens.shape[1], 0)
    columns, largest, places = over_trust(before, weights, settings)
    penalty = settings.alpha * settings.unit * largest.clamp(max=_LARGEST_LOG).exp().view_as(logits)
    # What all candidates of a beam share makes no difference to their softmax, but to its precision.
    penalised = (logits - (penalty - penalty.amin(-1, keepdim=True))).log_softmax(-1)
    options = []
    each = zip(tokens.flatten().tolist(), penalised.flatten().tolist(), places.tolist(), strict=True)
    for index, (token, score, place) in enumerate(each):
        origin = index // tokens.shape[1]
        beam = beams[origin]
        longer = Beam(beam.row, columns[index], beam.score + score, (*beam.places, place))
        options.append(Option(origin, token, longer))
    return options


def over_trust(before: Tensor, weights: Tensor, settings: Opera) -> tuple[Tensor, Tensor, Tensor]:
    """The logarithms of all columns' products [rows, tokens + 1], of the largest [rows], and its place [rows].

    `before` [rows, tokens] are those of the tokens written, `weights` [rows, heads, keys] are what one more attends to,
    itself last.
    """
    import torch

    own = weights.double().amax(1)
    own = own / own.sum(-1, keepdim=True)
    written = before.shape[1] + 1
    columns = torch.nn.functional.pad(before, (0, 1)) + (settings.scale * own[:, -written:]).log()
    largest, places = columns[:, -settings.window :].max(-1)
    return columns, largest, places + max(written - settings.window, 0)


def _choose(
    vlm: Vlm, sampling: SamplingParams, settings: Opera, now: Written, options: Sequence[Option]
) -> tuple[Written, list[Option]]:
    """The best options that go on, as beams, and those of the best that end; and the former as they were."""
    from veridical.vlm.generation import decode

    beams: list[Beam] = []
    kept: list[Option] = []
    ended = list(now.ended)
    for rank, option in enumerate(sorted(options, key=lambda one: -one.beam.score)):
        row = replace(option.beam.row, ids=list(option.beam.row.ids))
        decode.append(vlm, row, option.token, sampling)
        if row.sampled is None and len(beams) < settings.beams:
            beams.append(replace(option.beam, row=row))
            kept.append(option)
        elif row.sampled is not None and rank < settings.beams:
            ended.append((option.beam.score / len(option.beam.places), row.sampled))
    ended.sort(key=lambda one: -one[0])
    return Written(tuple(beams), tuple(ended[: settings.beams])), kept


def _settled(now: Written, settings: Opera) -> bool:
    """Whether no beam is better than the worst of as many texts that have ended."""
    best = now.beams[0].score / len(now.beams[0].places)
    return len(now.ended) == settings.beams and now.ended[-1][0] >= best


def summary_token(beams: Sequence[Beam], settings: Opera) -> int | None:
    """The place where every beam's largest product has been for `overlap` of the last tokens, if there is one."""
    places = set()
    for beam in beams:
        counts = Counter(beam.places[-settings.window :])
        place, times = max(counts.items(), key=lambda one: (one[1], -one[0]))
        places.add(place if times >= settings.overlap else None)
    return places.pop() if len(places) == 1 else None


class Retrospection:
    """What the search had written at each length, what it took there, and how often it came back."""

    def __init__(self, settings: Opera) -> None:
        self._settings = settings
        self._past: list[Written] = []
        self._taken: list[set[tuple[int, int]]] = []
        self._times: Counter[int] = Counter()
        self._latest = 0

    def left(self, now: Written, options: Sequence[Option]) -> list[Option]:
        """The options that have not been taken here before."""
        self._past.append(now)
        if len(self._taken) < len(self._past):
            self._taken.append(set())
        return [option for option in options if (option.origin, option.token) not in self._taken[-1]]

    def took(self, options: Sequence[Option]) -> None:
        """Note what has been chosen of them."""
        self._taken[-1].update((option.origin, option.token) for option in options)

    def back(self, place: int | None) -> Written | None:
        """What had been written up to the summary token at `place`, or before it after too many times; else None."""
        if place is None or place < self._latest:
            return None
        for length in (place + 1, place):
            options = len(self._past[length].beams) * self._settings.candidates
            if self._times[length] < self._settings.rollbacks and len(self._taken[length]) < options:
                self._latest = place
                self._times[length] += 1
                earlier = self._past[length]
                del self._past[length:], self._taken[length + 1 :]
                return earlier
        return None
