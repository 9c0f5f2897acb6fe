"""TPR: topic-level preference rewriting, arXiv 2411.17265: each topic of an answer replaced by the best and the worst
that the model itself says about it, and the pairs learnt from easy to hard.

The model answers several times. Of one answer each sentence is a topic, told by the objects that it names. Its
alternatives are the sentences of the other answers about the same objects, and what the model says when it is asked
again at that place. A checker says how true each alternative is, p(yes) - p(no). Chosen is the answer with every topic
replaced by its best alternative; rejected the same with the worst ones (an easy pair), or with those just below the
best (a hard pair): 60 % and 40 % in TPR-CL.

Who writes the alternatives into the answer: by `rewrite model` the model itself, as in the paper. It sees the image and
gets the alternatives as facts that count more than the image, to be worked into its answer with as few changes as can
be. What comes back fails where it is empty, repeats the instruction, or is below a quarter or above three times of the
answer's length; then, and by `rewrite sentences`, sentences stand where the ones that they replace stood. The paper
splits answers into atomic facts and sorts these into topics by what they answer; here a sentence is a fact.

The curriculum is the order of training: easy pairs first. Each pair states its `ease` (1 or 0), and `margin`, by how
much the two sides' topics differ in p(yes) - p(no) in the mean: `align --order easy-first --order-by ease`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge

from veridical.bounds import Natural, NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, YesNo, make_pair
from veridical.judges.interface import ExtractObjects, Kind, ToQuestion, Verify
from veridical.judges.lexicon import Mention
from veridical.judges.sentences import sentences
from veridical.judges.tokens import FULL_STOPS
from veridical.records import Message, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

NAME = "tpr"
EASE = "ease"
_FACTS = """Work the facts below into the text, which answers the question about the image. Where a fact and the image \
disagree, the fact counts. Change as few words as you can, and keep the style and the form. Write the new text and \
nothing else.

Facts:
{facts}

Question: {question}

Text: {text}

New text:"""
_MARKS = ("New text:", "Facts:", "Question:", "Text:")


@dataclass(frozen=True)
class TprSettings:
    """How answers and alternatives are drawn and checked, and how hard the pairs are."""

    candidates: Annotated[int, Ge(2)] = 10
    """Answers drawn for each record; 10 in the released code."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0.7 in the released code."""
    ask_again: Natural = 2
    """Further sentences drawn at each place of the answer."""
    check: Literal["model", "judge"] = "judge"
    """Who says how true a sentence is: the model itself, by its probability of yes; or the judge."""
    rewrite: Literal["sentences", "model"] = "sentences"
    """Who writes what replaces a topic into the answer: nobody, the sentences are exchanged; or the model (the paper),
    which must be able to follow instructions."""
    hard_share: Share = 0.4
    """Share of the pairs whose rejected side has the alternatives just below the best; 0.4 in TPR-CL."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens."""
    max_words: Positive = 350
    """Longer answers are left out."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""


def judge_needs(settings: TprSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (ExtractObjects, ToQuestion) if settings.check == "model" else (ExtractObjects, Verify)


def tpr(record: Record, settings: TprSettings, seed: int) -> Steps:
    """Chosen: an own answer with the best of what the model says on each topic.

    Rejected: the same with worse. Needs: what the judge needs.
    """
    context = Context(record.images, record.prompt, key=(record.id,))
    sampling = SamplingParams(settings.max_new_tokens, settings.temperature)
    sampled: list[Answer] = yield Sample(
        context, tuple((seed, record.id, NAME, number) for number in range(settings.candidates)), sampling
    )
    faults = text_filters.Faults("candidates", settings.max_words, settings.keep_unfinished)
    texts = list(faults.distinct((answer, "own sample") for answer in sampled))
    if len(texts) < 2:
        raise faults.rejected()
    topics = sentences(texts[0])
    others = [sentence.strip() for text in texts[1:] for sentence in sentences(text)]
    named = yield from _named([*(topic.strip() for topic in topics), *others])
    again = yield from _asked_again(context, topics, sampling, settings.ask_again, (seed, record.id, NAME, "again"))
    hard = float(generator("tpr curriculum", (seed, record.id)).random()) < settings.hard_share
    best: list[str] = []
    worse: list[str] = []
    known: dict[str, float] = {}
    for topic, drawn in zip(topics, again, strict=True):
        own = topic.strip()
        alike = [other for other in others if named[own] and named[own] & named[other]]
        alternatives = list(dict.fromkeys([own, *alike, *drawn]))
        ranked = yield from _ranked(record, alternatives, settings.check, known)
        # What two topics have in common is said once.
        best.append(([text for text in ranked if text not in best] or [own])[0])
        worse.append(_worse([text for text in ranked if text not in worse] or [own], known, hard))
    if best == worse:
        raise Rejected(
            "none-better", "draw more candidates, or raise the temperature", "no topic has a worse alternative"
        )
    sides = []
    for side, replaced in enumerate((best, worse)):
        key = (seed, record.id, NAME, "rewrite", side)
        sides.append((yield from _written(record, topics, replaced, settings, key)))
    (chosen, how), (rejected, _) = sides
    if text_filters.same(chosen, rejected):
        raise Rejected("same-answers", "take another model to rewrite, or --settings.rewrite sentences", chosen)
    margin = sum(known[one] - known[other] for one, other in zip(best, worse, strict=True)) / len(topics)
    return [
        make_pair(
            record,
            "hard" if hard else "easy",
            (chosen, f"own answer, each topic at its best, {how}"),
            (rejected, f"own answer, each topic {'a little worse' if hard else 'at its worst'}"),
            scores={EASE: float(not hard), "margin": margin, "topics": len(topics)},
        )
    ]


def _written(
    record: Record, topics: Sequence[str], replaced: Sequence[str], settings: TprSettings, key: tuple[str | int, ...]
) -> Generator[Request, Any, tuple[str, str]]:
    """The answer with its topics replaced, and how: by the model, or sentence for sentence."""
    spaces = [topic[len(topic.rstrip()) :] for topic in topics]
    exchanged = "".join(one + space for one, space in zip(replaced, spaces, strict=True)).strip()
    facts = [one for one, topic in zip(replaced, topics, strict=True) if one != topic.strip()]
    if settings.rewrite == "sentences" or not facts:
        return exchanged, "sentences exchanged"
    text = "".join(topics).strip()
    question = next(turn.text for turn in reversed(record.prompt) if turn.role == "user")
    numbered = "\n".join(f"{number}. {fact}" for number, fact in enumerate(facts, start=1))
    asked = (Message("user", _FACTS.format(facts=numbered, question=question, text=text)),)
    [answer] = yield Sample(
        Context(record.images, asked, key=(record.id, *map(str, key[2:]))),
        keys=(key,),
        sampling=SamplingParams(settings.max_new_tokens, 0.0),
    )
    if not answer.finished or not _follows(answer.text, text):
        return exchanged, "sentences exchanged, since the model's rewriting failed"
    return answer.text.strip(), "rewritten by the model"


def _follows(new: str, text: str) -> bool:
    """Whether a text may be the other one rewritten; the released code's limits."""
    length = len(new.strip())
    return length >= 3 and len(text) <= 4 * length <= 12 * len(text) and not any(mark in new for mark in _MARKS)


def _named(texts: Sequence[str]) -> Generator[Request, Any, dict[str, frozenset[str]]]:
    """The objects that each sentence names."""
    names: dict[str, frozenset[str]] = {}
    for text in dict.fromkeys(texts):
        mentions: list[Mention] = yield ExtractObjects(text)
        names[text] = frozenset(mention.name for mention in mentions)
    return names


def _asked_again(
    context: Context, topics: Sequence[str], sampling: SamplingParams, count: int, key: tuple[str | int, ...]
) -> Generator[Request, Any, list[list[str]]]:
    """Further sentences in the place of each topic, after what stands before it."""
    if not count:
        return [[] for _ in topics]
    before = ["".join(topics[:place]).rstrip() for place in range(len(topics))]
    sampled: list[Answer] = yield Sample(
        context,
        keys=tuple((*key, place, number) for place in range(len(topics)) for number in range(count)),
        sampling=replace(sampling, stop=FULL_STOPS),
        after=tuple(text for text in before for _ in range(count)),
    )
    texts = [one.text.strip() if one.finished else "" for one in sampled]
    return [[text for text in texts[place * count : (place + 1) * count] if text] for place in range(len(topics))]


def _ranked(
    record: Record, texts: Sequence[str], check: Literal["model", "judge"], known: dict[str, float]
) -> Generator[Request, Any, list[str]]:
    """The alternatives from the truest on, p(yes) - p(no) in `known`; of equals the first comes first."""
    for text in texts:
        if text in known:
            continue
        if check == "judge":
            true: float = yield Verify(record, text)
        else:
            question: str = yield ToQuestion(text)
            true = yield YesNo(Context(record.images, (Message("user", question),), key=(record.id,)))
        known[text] = 2 * true - 1
    return sorted(texts, key=lambda text: -known[text])


def _worse(ranked: Sequence[str], known: Mapping[str, float], hard: bool) -> str:
    """The least true alternative, or the truest of those that are less true than the best; the best if none is."""
    below = [text for text in ranked if known[text] < known[ranked[0]]]
    return (below[0] if hard else below[-1]) if below else ranked[0]
