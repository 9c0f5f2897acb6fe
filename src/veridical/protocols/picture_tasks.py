"""The protocols on annotated pictures, the picture world's or a user's own, as tasks for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError
from veridical.protocols import chair
from veridical.protocols.benchmark_task import YES_NO, as_answers, as_counted
from veridical.protocols.captioning import caption_name, caption_requests, caption_row, caption_settings
from veridical.protocols.equal_recall import cuts
from veridical.protocols.eval_task import Counted, Reply, Request, Shown, Task
from veridical.protocols.sources import Pictures
from veridical.protocols.types import Answers, Question, Scored
from veridical.records import Message
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig


def chair_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Captions against all that is in the pictures."""
    return caption_task(pictures, config, Clean(), 0.0)


def caption_task(pictures: Pictures, config: EvalConfig, view: View, temperature: float) -> Task:
    """CHAIR of pictures shown under a view; greedy at temperature 0, else keyed draws."""
    words = pictures.vocabulary

    def count(replies: Mapping[str, Reply]) -> Counted:
        items = [chair.read(r, str(replies[r.id]), words.lexicon) for r in pictures.records if r.id in replies]
        return Counted(
            chair.counted(items, words.partner),
            rows=[caption_row(item) for item in items],
            captions=items,
            cuts=cuts(items),
            counts={"items": len(pictures.records), "unanswered": len(pictures.records) - len(items)},
        )

    return Task(
        key="chair",
        name=caption_name(_named("chair/1", pictures), pictures, config),
        requests=caption_requests(pictures, config, view, temperature),
        count=count,
        shown=(
            Shown("chair_s", "CHAIRs %"),
            Shown("chair_i", "CHAIRi %"),
            Shown("invented_partner", "usual partner *%"),
            Shown("recall", "recall %"),
            Shown("objects", "objects a caption", 2),
            Shown("words", "words a caption"),
            Shown("repetition", "names one twice %"),
        ),
        settings=caption_settings(pictures, config),
    )


def pope_task(pictures: Pictures, config: EvalConfig) -> Task:
    """POPE about present and absent objects, in three settings; by likelihood, or by text and POPE's own rule."""
    from veridical.protocols.annotated import pope
    from veridical.protocols.benchmarks import pope as benchmark

    words = pictures.vocabulary
    questions = [
        q
        for record in pictures.records
        for q in pope.ask(record, words.classes, words.statistics, config.questions, config.seed)
    ]
    by_text = config.answers == "text"
    return _asked(
        pictures,
        questions,
        key="pope",
        name="pope[official]/1" if by_text else "pope/1",
        choices=() if by_text else YES_NO,
        limit=benchmark.MAX_NEW_TOKENS,
        count=lambda answers: benchmark.count(benchmark.Settings(questions=()), questions, answers),
        shown=tuple(
            Shown(f"{setting}_{metric}", label)
            for setting in pope.SETTINGS
            for metric, label in (("accuracy", f"POPE {setting} %"), ("yes_ratio", "  says yes %"))
        ),
        settings={"questions": config.questions},
    )


def shr_task(pictures: Pictures, config: EvalConfig) -> Task:
    """SHR: descriptions judged sentence by sentence, by an oracle that goes by the annotations."""
    from veridical.protocols.annotated import shr
    from veridical.protocols.benchmarks import shr as benchmark

    questions = [Question(r.id, str(r.images[0].path), benchmark.PROMPT, group=r.id) for r in pictures.records]

    def count(answers: Answers) -> Scored:
        judged = shr.judgements(pictures.records, answers.texts, pictures.vocabulary)
        return benchmark.count(benchmark.Settings(), questions, answers, judged)

    return _asked(
        pictures,
        questions,
        key="shr",
        name="shr/2",
        limit=shr.MAX_NEW_TOKENS,
        count=count,
        shown=(
            Shown("hal_sents_ratio", "SHR (0 to 1)", 2),
            Shown("cannot_judge_ratio", "cannot judge", 2),
            Shown("sents_per_image", "sentences", 2),
            Shown("words_per_image", "words"),
            Shown("gram_4", "new 4-grams", 2),
        ),
        settings={"prompt": benchmark.PROMPT},
    )


def mme_task(pictures: Pictures, config: EvalConfig) -> Task:
    """MME: pairs of yes/no questions about existence, count, position, colour and scene."""
    from veridical.protocols.annotated import mme
    from veridical.protocols.benchmarks import mme as benchmark

    questions = [q for record in pictures.records for q in mme.ask(record, pictures.vocabulary, config.seed)]
    asked = dict.fromkeys(question.kind for question in questions)
    return _asked(
        pictures,
        questions,
        key="mme",
        name="mme/2",
        limit=benchmark.MAX_NEW_TOKENS,
        # That there are fewer subtasks than in the published files needs no note.
        count=lambda answers: replace(benchmark.count(benchmark.Settings(), questions, answers), notes=()),
        shown=(
            Shown("acc", "all subtasks acc %"),
            *(Shown(f"{name}_{metric}", f"{name} {label}") for name in asked for metric, label in _MME_SHOWN),
            Shown("yes_ratio", "  says yes %"),
            Shown("unparsed", "  unparsed %"),
        ),
        settings={},
    )


def skills_task(pictures: Pictures, config: EvalConfig) -> Task:
    """How many, on which side, which place: what a model may lose while it learns to describe."""
    from veridical.protocols.annotated import skills

    questions = [q for record in pictures.records for q in skills.ask(record, config.seed)]
    if not questions:
        raise UserError("world-skills asks in the picture world's words; measure it on --records world:SPLIT")
    return _asked(
        pictures,
        questions,
        key="skills",
        name=skills.NAME,
        limit=skills.MAX_NEW_TOKENS,
        count=lambda answers: skills.count(questions, answers),
        shown=(
            Shown("mean_acc", "skills, mean %"),
            Shown("count_one_acc", "  counts one %"),
            Shown("count_more_acc", "  counts more %"),
            Shown("side_acc", "  tells side %"),
            Shown("place_acc", "  tells place %"),
        ),
        settings={},
    )


_MME_SHOWN = (("acc", "acc %"), ("acc_plus", "acc+ %"))


def _asked(
    pictures: Pictures,
    questions: Sequence[Question],
    *,
    key: str,
    name: str,
    limit: int,
    count: Callable[[Answers], Scored],
    shown: Sequence[Shown],
    settings: Mapping[str, Any],
    choices: tuple[str, ...] = (),
) -> Task:
    """A benchmark's questions about annotated pictures as a task: greedy text, or the likelier of two choices."""
    sampling = SamplingParams(max_new_tokens=limit, temperature=0.0)
    decoding = {} if choices else {"decoding": "greedy", "max_new_tokens": limit}
    return Task(
        key=key,
        name=_named(name, pictures),
        requests={
            q.id: Request(
                pictures.by_id[q.group].images, (Message("user", q.prompt),), sampling, choices, key=(key, q.group)
            )
            for q in questions
        },
        count=lambda replies: as_counted(count(as_answers(replies, choices)), questions),
        shown=shown,
        settings={**settings, **decoding},
        prefix=f"{key}_",
    )


def under_view(pictures: Pictures, config: EvalConfig, records: int, view: View, temperature: float) -> Task:
    """CHAIR of the first `records` pictures of each split under a view."""
    fewer = {split: records_of_split[:records] for split, records_of_split in pictures.splits.items()}
    return caption_task(replace(pictures, splits=fewer), config, view, temperature)


def _named(name: str, pictures: Pictures) -> str:
    """A protocol's name: numbers on other pictures are those of another protocol."""
    return f"{pictures.origin}-{name}"
