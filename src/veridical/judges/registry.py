"""The judges by name; a module is imported when its judge is asked for.

A judge is opened from its settings. A build has two: the *judge* says what is true and what is better, the *writer*
makes texts; how alike texts are is counted in words, or said by a sentence encoder.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from veridical.errors import UserError
from veridical.judges.interface import METHODS, Judge
from veridical.judges.panel import Panel, offers
from veridical.judges.similarity import TokenSimilarity

if TYPE_CHECKING:
    from veridical.judges.lexicon_sources import Words
    from veridical.vlm.model.loading import Vlm

TOKENS = "tokens"
"""The similarity that needs no model."""


@dataclass(frozen=True)
class Setting:
    """What a judge may draw on besides its own settings: the words for objects, and the examined model's loader."""

    words: Words | None = None
    model: Callable[[], Vlm] | None = None


class JudgeSettings(Protocol):
    """The settings of a judge, which can open it."""

    @property
    def name(self) -> str:
        """The word that picks this judge."""

    def open(self, setting: Setting) -> Judge | None:
        """The judge; None where it has nothing to judge by. Raises UserError for settings that can't be."""


class Entry(NamedTuple):
    """Where a judge lives: its settings, and its class, which says what it offers."""

    settings: str
    judge: str


JUDGES: Mapping[str, Entry] = MappingProxyType(
    {
        "oracle": Entry("veridical.judges.oracle:OracleSettings", "veridical.judges.oracle:Oracle"),
        "rules": Entry("veridical.judges.rules:RulesSettings", "veridical.judges.rules:Rules"),
        "language-model": Entry(
            "veridical.judges.models:LanguageModelSettings", "veridical.judges.language:LanguageJudge"
        ),
        "vision-language-model": Entry(
            "veridical.judges.models:VisionLanguageModelSettings", "veridical.judges.language:LanguageJudge"
        ),
        "detector": Entry("veridical.judges.detector:DetectorSettings", "veridical.judges.detector:Detector"),
        "reward-model": Entry(
            "veridical.judges.reward_model:RewardModelSettings", "veridical.judges.reward_model:VisionReward"
        ),
        "verifier": Entry("veridical.judges.verifier:VerifierSettings", "veridical.judges.verifier:Verifier"),
        "self": Entry("veridical.judges.implicit:ImplicitSettings", "veridical.judges.implicit:ImplicitReward"),
    }
)


@dataclass(frozen=True)
class Same:
    """The judge writes, too."""

    name: Literal["same"] = "same"
    """Which judge writes texts: same is the one of --judge.name."""

    def open(self, setting: Setting) -> None:
        """Nothing of its own."""


def writer_type(name: str) -> type[JudgeSettings]:
    """The settings class of the writer called `name`: a judge's, or `same`. Raises UserError for another name."""
    return Same if name == "same" else settings_type(name, "writer.name")


def open_panel(judge: JudgeSettings, writer: JudgeSettings, setting: Setting, similarity: str = TOKENS) -> Panel:
    """The panel of a run; `similarity` is `tokens` or a sentence encoder. Raises UserError for what can't be."""
    opened = [judge.open(setting), _similarity(similarity)]
    return Panel(tuple(one for one in opened if one is not None), writer.open(setting))


def settings_type(name: str, flag: str = "judge.name") -> type[JudgeSettings]:
    """The settings class of the judge called `name`. Raises UserError, naming `flag`, for a name that is not there."""
    if name not in JUDGES:
        near = difflib.get_close_matches(name, JUDGES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(JUDGES)}."
        raise UserError(f"{flag}: no judge {name!r}; {hint}")
    found: type[JudgeSettings] = _imported(JUDGES[name].settings)
    return found


def who_offers(method: str) -> list[str]:
    """The names of the judges that have a method of `METHODS`."""
    kinds = [kind for kind, known in METHODS.items() if known == method]
    return [name for name, entry in JUDGES.items() if offers(_imported(entry.judge)) >= set(kinds)]


def _similarity(name: str) -> Judge:
    if name == TOKENS:
        return TokenSimilarity()
    from veridical.judges.embedding import load_embedding

    return load_embedding(name)


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
