"""The judges by name; a module is imported when its judge is asked for.

A judge is opened from its settings. A build has two: the *judge* says what is true and what is better, the *writer*
makes texts; how alike texts are is said by a sentence encoder, or without a model by their facts or words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from veridical.judges.interface import Judge
from veridical.judges.panel import Panel
from veridical.judges.similarity import FactSimilarity, TokenSimilarity
from veridical.registry import Own, Registry, lacks
from veridical.world.bundled import is_bundled

if TYPE_CHECKING:
    from veridical.judges.lexicon_sources import Words
    from veridical.vlm.model.loading import Vlm

AUTO, TOKENS, FACTS = "auto", "tokens", "facts"
"""The similarity that is chosen by what is installed, and those that need no model."""


@dataclass(frozen=True)
class JudgeContext:
    """What a judge may draw on besides its own settings: the words for objects, and the examined model's loader."""

    words: Words | None = None
    model: Callable[[], Vlm] | None = None


class AnyJudgeSettings(Protocol):
    """The settings of a judge, which can open it."""

    @property
    def name(self) -> str:
        """The word that picks this judge."""

    def open(self, context: JudgeContext) -> Judge | None:
        """The judge; None where it has nothing to judge by. Raises UserError for settings that can't be."""


def _own(module: str, settings: str, summary: str) -> Own:
    return Own(f"veridical.judges.{module}:{settings}", summary)


JUDGES: Registry[type[AnyJudgeSettings]] = Registry(
    kind="judge",
    group="veridical.judges",
    own={
        "oracle": _own("oracle", "OracleSettings", "compares texts with the annotations of the image"),
        "mistaken": _own("mistaken", "MistakenSettings", "the oracle with mistakes: an annotator of stated strength"),
        "rules": _own("rules", "RulesSettings", "compares objects that a lexicon finds with the reference"),
        "language-model": _own("models", "LanguageModelSettings", "a language model, local or at a URL"),
        "vision-language-model": _own("models", "VisionLanguageModelSettings", "a model that sees the images"),
        "detector": _own("detector", "DetectorSettings", "an object detector, which sees what is there"),
        "image-text": _own("image_text", "ImageTextSettings", "rates a text by its similarity to the image (CLIP)"),
        "reward-model": _own("reward_model", "RewardModelSettings", "rates answers by a trained reward"),
        "verifier": _own("verifier", "VerifierSettings", "checks sentence by sentence, as a judge taught it"),
        "self": _own("implicit", "ImplicitSettings", "the implicit reward of the aligned model itself"),
        "backbone": _own("backbone", "BackboneSettings", "the model itself, without the image, injects errors (BPO)"),
    },
    check=lambda made: lacks(made, ("open",)),
)


@dataclass(frozen=True)
class Same:
    """The judge writes, too."""

    name: Literal["same"] = "same"
    """Which judge writes texts: same is the one of --judge.name."""

    def open(self, context: JudgeContext) -> None:
        """Nothing of its own."""


def default_writer(construction: str, model: str) -> str:
    """Who writes where nobody says so: for bpo-inject the model's own language part, as in the paper, unless that is
    the bundled model, which can't be told what to write; otherwise the judge."""
    return "backbone" if construction == "bpo-inject" and not is_bundled(model) else "same"


def writer_type(name: str) -> type[AnyJudgeSettings]:
    """The settings class of the writer called `name`: a judge's, or `same`. Raises UserError for another name."""
    return Same if name == "same" else settings_type(name, "writer.name")


def open_panel(
    judge: AnyJudgeSettings, writer: AnyJudgeSettings, context: JudgeContext, similarity: str = AUTO
) -> Panel:
    """The panel of a run; `similarity` is `auto`, `facts`, `tokens` or a sentence encoder. Raises UserError for what
    can't be."""
    opened = [judge.open(context), _similarity(chosen_similarity(similarity), context)]
    return Panel(tuple(one for one in opened if one is not None), writer.open(context))


def settings_type(name: str, flag: str = "judge.name") -> type[AnyJudgeSettings]:
    """The settings class of the judge called `name`, or at that place. Raises UserError, naming `flag`, without one."""
    return JUDGES.get(name, flag)


def chosen_similarity(name: str) -> str:
    """The similarity that `auto` means here: the installed sentence encoder, or `facts` where there is none."""
    from veridical.judges.embedding import PACKAGED, is_packaged

    return (PACKAGED if is_packaged() else FACTS) if name == AUTO else name


def _similarity(name: str, context: JudgeContext) -> Judge:
    from veridical.judges.embedding import PACKAGED, PackagedSimilarity, is_packaged, load_embedding

    if name == TOKENS:
        return TokenSimilarity()
    if name == FACTS:
        return FactSimilarity(None if context.words is None else context.words.lexicon)
    return PackagedSimilarity() if name == PACKAGED and is_packaged() else load_embedding(name)
