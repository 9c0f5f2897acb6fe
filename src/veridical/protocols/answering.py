"""Get a model's answers to a protocol's questions. The image of a record is encoded once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.protocols import chair, pope
from veridical.protocols.chair import ChairItem
from veridical.protocols.pope import PopeItem, Question
from veridical.protocols.sources import Vocabulary
from veridical.records import Record

if TYPE_CHECKING:
    from veridical.vlm.loading import Vlm
    from veridical.vlm.prefix import Prefix
    from veridical.vlm.views import View

TEXT_ANSWER_TOKENS = 16


def describe_records(
    vlm: Vlm, records: Sequence[Record], vocabulary: Vocabulary, view: View, temperature: float = 0.0
) -> list[ChairItem]:
    """One caption of each record, read by CHAIR; greedy at temperature 0, else keyed draws."""
    import torch

    from veridical.vlm.prefix import Context, encode
    from veridical.vlm.sampling import Branch, Sampling, sample

    contexts = [Context(record.images, chair.ask(), view, key=("chair", record.id)) for record in records]
    branches = [Branch(index, key=("chair", record.id)) for index, record in enumerate(records)]
    with torch.no_grad():
        sampling = Sampling(max_new_tokens=chair.MAX_NEW_TOKENS, temperature=temperature)
        captions = sample(vlm, encode(vlm, contexts), branches, sampling)
    return [chair.read(r, caption.text, vocabulary.lexicon) for r, caption in zip(records, captions, strict=True)]


def answer_by_likelihood(
    vlm: Vlm, records: Sequence[Record], vocabulary: Vocabulary, questions: int, seed: int
) -> list[PopeItem]:
    """POPE, answered by the likelier of "Yes" and "No" as the first token."""
    import torch

    from veridical.vlm.scoring import next_token_logprobs

    asked = _ask(records, vocabulary, questions, seed)
    if not asked:
        return []
    with torch.no_grad():
        names, prefix = _encode(vlm, records, asked)
        scores = next_token_logprobs(vlm, prefix, pope.ANSWERS).tolist()
    answers = dict(zip(names, scores, strict=True))
    return [pope.read(question, *answers[question.record, question.object]) for question in asked]


def answer_by_text(
    vlm: Vlm, records: Sequence[Record], vocabulary: Vocabulary, questions: int, seed: int
) -> list[PopeItem]:
    """POPE, answered by greedy text of at most 16 tokens, read by the official rule."""
    import torch

    from veridical.vlm.sampling import Branch, Sampling, sample

    asked = _ask(records, vocabulary, questions, seed)
    if not asked:
        return []
    with torch.no_grad():
        names, prefix = _encode(vlm, records, asked)
        branches = [Branch(index) for index in range(len(names))]
        texts = sample(vlm, prefix, branches, Sampling(max_new_tokens=TEXT_ANSWER_TOKENS, temperature=0.0))
    answers = dict(zip(names, (one.text for one in texts), strict=True))
    return [pope.read_text(question, answers[question.record, question.object]) for question in asked]


def _ask(records: Sequence[Record], vocabulary: Vocabulary, questions: int, seed: int) -> list[Question]:
    return [
        question
        for record in records
        for question in pope.ask(record, vocabulary.classes, vocabulary.statistics, questions, seed)
    ]


def _encode(vlm: Vlm, records: Sequence[Record], asked: Sequence[Question]) -> tuple[list[tuple[str, str]], Prefix]:
    """Every different question, as (record, object), and their prefix; the same may stand in several settings."""
    from veridical.vlm.prefix import Context, encode, features, prepare

    images = {record.id: record.images for record in records}
    names = list(dict.fromkeys((question.record, question.object) for question in asked))
    prepared = [prepare(vlm, Context(images[r], pope.prompt(name), key=("pope", r))) for r, name in names]
    if not vlm.traits.takes_features:
        return names, encode(vlm, prepared)
    firsts = {record: one for (record, _), one in reversed(list(zip(names, prepared, strict=True)))}
    seen = dict(zip(firsts, features(vlm, list(firsts.values())), strict=True))
    return names, encode(vlm, prepared, [seen[record] for record, _ in names])
