"""shr/1: which sentences of a description are hallucinated, by a judge with facts (HA-DPO, arXiv 2311.16839).

`hal_sents_ratio` (published as SHR, x 100) is hallucinated sentences of all judged ones, `hal_words_ratio` the same by
words, `cannot_judge_ratio` the share that the judge can't tell; per image: sentences, words, and hallucinated ones.
`gram_1` to `gram_4` are distinct of all n-grams, averaged over descriptions (higher is less repetition). Where a
judgement has another number of lines than the description has sentences, none of them counts. Ratios are between 0 and
1 with three decimals, as in the official scorer.

Metrics: hal_sents_ratio and others (0 to 1), gram_1 to gram_4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.judges.sentences import shr_sentences
from veridical.protocols.answer_files import AnswerSettings, Fields, read_answers
from veridical.protocols.answer_writers import as_json
from veridical.protocols.benchmarks.chair_truth import image_key
from veridical.protocols.benchmarks.shr_files import read_facts, read_regions
from veridical.protocols.joining import Joining, join_images
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judging import Judgements, JudgementSettings, JudgePrompt, Template, one_run, template
from veridical.protocols.metrics import Sums, rounded, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored

NAME = "shr"
VERSION = 1
MAX_NEW_TOKENS = 512
BEAMS = 5
"""The official script searches with so many."""
PROMPT = "Describe this image in detail."
JUDGE = JudgeParams(max_tokens=800, temperature=0.7, usable=lambda text: "Judgement" in text, tries=10, warmer=0.0)
"""As the official scorer: a reply without the word is asked again (there without end)."""
LONGEST_PROMPT = 15_000
CLASSES = ("hallucination", "correct", "cannot judge")
GRAMS = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, JudgementSettings):
    """SHR's files and the judge's."""

    regions: Path | None = None
    """What is in the images: JSON {image_id: ["[x1,y1,x2,y2]: phrase", ...]}, or Visual Genome's
    region_descriptions.json; needed for prompts."""
    image_data: Path | None = None
    """With Visual Genome's regions: its image_data.json."""
    val_images: Path | None = None
    """val_images_final.json: the only images of --regions to ask about."""
    facts: tuple[Path, ...] = ()
    """JSON lines of {image_id: [facts]}, or of image_id and facts (shr_factual_part1.jsonl, ...)."""
    answers: Path | None = None
    """The descriptions: JSON {image_id: text}, or rows of image_id and text."""


def ask(settings: Settings) -> list[Question]:
    """One question for each image whose regions are known; else for each that is described."""
    if settings.regions is not None:
        regions = read_regions(settings.regions, settings.image_data, settings.val_images)
        facts = read_facts(settings.facts)
        return [_question(key, texts, facts.get(key, ())) for key, texts in regions.items()]
    return [_question(key, (), ()) for key in _descriptions(settings, None).texts]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The descriptions by image."""
    return _descriptions(settings, questions)


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {regions}, {facts}, {sentences}."""
    return template(settings, "shr")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
    """One for each description that is not longer with its facts than the official limit of 15,000 characters."""
    if settings.make_prompts and settings.regions is None:
        raise UserError("--make-prompts: needs --regions.")
    made_from = judge_template(settings)
    made = []
    for q in questions:
        if q.id in answers.texts:
            numbered = "\n".join(f"{n}. {s}" for n, s in enumerate(shr_sentences(answers.texts[q.id]), start=1))
            regions, facts = "\n".join(q.truth), "\n".join(q.more["facts"])
            made.append(JudgePrompt(q.id, made_from.fill(regions=regions, facts=facts, sentences=numbered), q.image))
    return [prompt for prompt in made if len(prompt.text) <= LONGEST_PROMPT]


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """An object with the description of each image."""
    return {"shr.json": as_json({q.id: texts[q.id] for q in questions if q.id in texts})}


def count(settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements) -> Scored:
    """Read the judgements sentence by sentence; repetition needs none."""
    one_run(judged)
    items, rows = [], []
    for question in questions:
        text = answers.texts.get(question.id)
        item = _item(question, text, judged.only(question.id))
        items.append(item)
        if text is not None:
            rows.append((question.id, _cells(text, item)))
    columns = ["images", "sents", "words", "hal_sents", "hal_words", "known_sents", "known_words", "unsure_sents"]
    columns += [f"gram_{n}/{part}" for n in GRAMS for part in ("rate", "texts")]
    faults = {**answers.faults, **judged.faults}
    return Scored(f"{NAME}/{VERSION}", tally(rows, columns, _metrics), items, faults, judged.judge)


def parse_judgement(text: str, count: int) -> list[str | None]:
    """The class of each sentence: after the line with "Judgement:", a line's first word dropped, up to the colon.

    Lines of which nothing is left don't count. Another number of lines than sentences makes all classes None; so is a
    class that is none of the three.
    """
    lines = text.split("\n")
    start = next((n for n, line in enumerate(lines) if "Judgement:" in line), len(lines))
    judged = [" ".join(line.split(" ")[1:]).strip() for line in lines[start + 1 :]]
    judged = [line for line in judged if line]
    if len(judged) != count:
        return [None] * count
    classes = [line.split(":")[0].lower() for line in judged]
    return [name if name in CLASSES else None for name in classes]


def distinct_grams(text: str, n: int) -> float | None:
    """Distinct of all runs of n words, without . : ? , and line breaks; None where there are none."""
    words = text.translate(str.maketrans("", "", ".:\n?,")).split()
    runs = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def _item(question: Question, text: str | None, judgement: str | None) -> Item:
    more: dict[str, Any] = {"answer": text, "judgement": judgement}
    if text is None:
        return Item(question.id, None, None, "unanswered", more)
    more["sentences"] = shr_sentences(text)
    if judgement is None:
        return Item(question.id, None, None, "unjudged", more)
    classes = parse_judgement(judgement, len(more["sentences"]))
    fault = "unparsed" if None in classes or not classes else ""
    return Item(question.id, classes, "hallucination" not in classes if any(classes) else None, fault, more)


def _cells(text: str, item: Item) -> dict[str, float]:
    """What one description adds: repetition; where it was judged, also its sentences and their words."""
    cells: dict[str, float] = {}
    for n in GRAMS:
        rate = distinct_grams(text, n)
        if rate is not None:
            cells |= {f"gram_{n}/rate": rate, f"gram_{n}/texts": 1.0}
    if item.fault == "unjudged":
        return cells
    lengths = [len(sentence.split(" ")) for sentence in item.more["sentences"]]
    known = [(words, name) for words, name in zip(lengths, item.parsed, strict=True) if name is not None]
    made_up = [words for words, name in known if name == "hallucination"]
    counts = {
        "images": 1, "sents": len(lengths), "words": sum(lengths), "hal_sents": len(made_up), "hal_words": sum(made_up),
        "known_sents": len(known), "known_words": sum(words for words, _ in known),
        "unsure_sents": sum(name == "cannot judge" for _, name in known),
    }  # fmt: skip
    return cells | {name: float(number) for name, number in counts.items()}


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    ratios = {
        "hal_sents_ratio": ("hal_sents", "known_sents"),
        "hal_words_ratio": ("hal_words", "known_words"),
        "hal_sents_per_image": ("hal_sents", "images"),
        "hal_words_per_image": ("hal_words", "images"),
        "cannot_judge_ratio": ("unsure_sents", "known_sents"),
        "sents_per_image": ("sents", "images"),
        "words_per_image": ("words", "images"),
    } | {f"gram_{n}": (f"gram_{n}/rate", f"gram_{n}/texts") for n in GRAMS}
    return {name: rounded(share(sums[part], sums[whole], 1.0), 3) for name, (part, whole) in ratios.items()}


def _question(image: str, regions: Sequence[str], facts: Sequence[str]) -> Question:
    return Question(image_key(image), image, PROMPT, list(regions), group=image, more={"facts": list(facts)})


def _descriptions(settings: Settings, questions: Sequence[Question] | None) -> Answers:
    path = settings.answers
    if path is None:
        raise UserError("--regions: give what is in the images, or --answers: the descriptions.")
    joining = Joining()
    fields = Fields(id=("image_id", "image", "id", "question_id"))
    join_images(read_answers(path, settings), questions, fields, joining, lambda name, _: image_key(name))
    return joining.done()
