"""Answers the requests of constructions: the generator's, the judges', and which records look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from veridical.constructions.protocol import Request, Retrieve, Sample, Score, YesNo
from veridical.errors import UserError
from veridical.generators.local import each_or_its_error
from veridical.judges.panel import Panel
from veridical.lanes import LOCAL, Lane
from veridical.pairs.retrieval import Gallery

if TYPE_CHECKING:
    from veridical.generators.interface import Generator
    from veridical.judges.interface import JudgeRequest


@dataclass(frozen=True)
class Engine:
    """A generator, the judges, and the records among which images are retrieved."""

    generator: Generator
    judges: Panel
    gallery: Gallery = field(default_factory=lambda: Gallery(()))

    def expect(self, requests: Iterable[Request]) -> None:
        """Say which requests come next, in order, so that their images are decoded by then."""
        self.generator.expect(requests)

    def lane(self, request: Request) -> Lane:
        """Where a request waits."""
        if isinstance(request, Sample | Score | YesNo):
            return self.generator.lane
        return LOCAL if isinstance(request, Retrieve) else self.judges.lane(type(request))

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests of one kind, in order."""
        match requests[0]:
            case Sample() | Score() | YesNo():
                return self.generator.answer(requests)
            case Retrieve():
                asked = cast("Sequence[Retrieve]", requests)
                return [self.gallery.similar(request.record, request.count, request.by) for request in asked]
        # What a judge says to the user, such as that its quota has ended, ends the build.
        return each_or_its_error(cast("Sequence[JudgeRequest]", requests), self.judges.answer, passing=(UserError,))
