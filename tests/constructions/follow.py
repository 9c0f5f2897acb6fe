"""Follows a procedure by hand: the model's answers are given, judges are the real ones."""

from veridical.constructions.protocol import Answer, Rejected, Sample
from veridical.judges.lexicon_sources import world_lexicon
from veridical.judges.oracle import Oracle
from veridical.judges.panel import Panel
from veridical.judges.similarity import TokenSimilarity
from veridical.judges.writers import GrammarWriter
from veridical.records import Rejection

ORACLE = Oracle(world_lexicon(), (GrammarWriter(),))


PANEL = Panel((ORACLE, TokenSimilarity()))


def follow(steps, *answers, panel=PANEL):
    """Answer the model's requests with what is given, and others by the judges; returns (asked, outcome).

    An answer to a `Sample` is a list of texts or `Answer`s; to any other request of the model, the answer itself.
    """
    given, asked, answer = iter(answers), [], None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as end:
            assert next(given, None) is None, "an answer that was not asked for"
            return asked, end.value
        except Rejected as why:
            assert next(given, None) is None, "an answer that was not asked for"
            return asked, Rejection("r1", why.reason, why.remedy, why.detail)
        asked.append(request)
        if isinstance(request, Sample):
            texts = next(given)
            assert len(texts) == len(request.keys)
            answer = [text if isinstance(text, Answer) else Answer(text, True) for text in texts]
        elif type(request) in panel.kinds:
            [answer] = panel.answer([request])
        else:
            answer = next(given)
