"""The findings about a set as one HTML page, with pictures and texts of the pairs that they are about."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources
from io import BytesIO
from typing import Any

from veridical.pairs.audit.finding import Checked
from veridical.records import ImageFile, Pair

EXAMPLES = 6
SIDE = 220


def render(source: str, checked: Checked, pairs: Sequence[Pair]) -> str:
    """The page's HTML. Texts are escaped; pictures are small copies inside the page."""
    import jinja2

    by_id = {pair.id: pair for pair in pairs}
    template = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    findings = [
        {"finding": finding, "examples": [_example(by_id[name]) for name in finding.pairs[:EXAMPLES] if name in by_id]}
        for finding in checked.findings
    ]
    return environment.from_string(template).render(source=source, checked=checked, findings=findings)


def _example(pair: Pair) -> dict[str, Any]:
    prompt = pair.prompt[-1].text if pair.prompt else ""
    pictures = [picture for image in pair.images[:2] if (picture := _thumbnail(image))]
    return {"id": pair.id, "prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected, "pictures": pictures}


def _thumbnail(image: ImageFile) -> str:
    """A small JPEG as a data address; empty where the image can't be read."""
    from veridical.vlm.images.files import ImageError, open_image

    try:
        small = open_image(image).convert("RGB")
    except ImageError:
        return ""
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
