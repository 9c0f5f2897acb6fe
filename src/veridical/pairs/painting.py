"""`veridical data paint`: pictures for prompts, by a text-to-image model at an endpoint or by the picture world.

PDS-DPO (arXiv 2412.17417) makes its images itself: of several pictures for a prompt the one is kept that a reward for
images and texts likes best. The folder that comes out is one of records, as `build`, `data answers` and `eval` read it;
questions about a picture are asked as `ask` says, or as the prompts' file does.

The endpoint is any that speaks OpenAI's images API (`/images/generations`, answers with `b64_json`). The picture world
draws prompts of its own grammar ("There is a fork and a cup on the table.") and knows what it drew, so its records are
annotated.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from veridical.bounds import AboveZero, NotNegative, Positive, Seed
from veridical.errors import UserError
from veridical.files import write_whole
from veridical.formats.sources import DESCRIBE
from veridical.progress import Line
from veridical.records import ImageFile, Message, Record
from veridical.runs import INCIDENTAL

if TYPE_CHECKING:
    from veridical.judges.image_text import ImageTextJudge

METADATA = "metadata.jsonl"
_PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))


@dataclass(frozen=True)
class PaintConfig:
    """Make pictures for prompts, several each, and keep the best."""

    prompts: Path
    """What to paint: a text file with a prompt a line, or .jsonl with `prompt` and, to be asked about the picture,
    `question`; or world, for captions of the picture world."""
    out: Path = field(metadata=INCIDENTAL)
    """Folder for the pictures and metadata.jsonl; the same command continues."""
    painter: Literal["endpoint", "world"] = "endpoint"
    """Who paints: a text-to-image model at --url, or the picture world, which knows its own grammar only."""
    url: str = field(default="", metadata=INCIDENTAL)
    """The endpoint, such as http://localhost:8000/v1."""
    model: str = ""
    """The model's id there; Stable Diffusion 3 medium in PDS-DPO."""
    key_variable: str = field(default="OPENAI_API_KEY", metadata=INCIDENTAL)
    """The environment variable that holds the endpoint's key."""
    size: str = "1024x1024"
    """Width and height that are asked for."""
    candidates: Positive = 4
    """Pictures a prompt, of which the best is kept; 4 in PDS-DPO."""
    ranker: str = ""
    """Who says which is best: a model that compares images with texts (CLIP, SigLIP, ...), by folder or hub name. Left
    out, the first one is kept."""
    limit: Positive | None = None
    """Paint that many prompts; all of them if left out (world: 100)."""
    ask: str = DESCRIBE
    """What is asked about a picture whose prompt brings no question."""
    tries: Positive = field(default=4, metadata=INCIDENTAL)
    """How often a call is tried that fails for a reason that may pass."""
    timeout: AboveZero = field(default=300.0, metadata=INCIDENTAL)
    """Seconds until a call is tried again."""
    first_wait: NotNegative = field(default=1.0, metadata=INCIDENTAL)
    """Seconds before the second try; the wait doubles with each."""
    seed: Seed = 0
    """Seeds what the picture world draws."""
    device: str = field(default="auto", metadata=INCIDENTAL)
    """Where the ranker runs."""


@dataclass(frozen=True)
class Painted:
    """A picture as a PNG, and what is known to be in it."""

    png: bytes
    known: Mapping[str, Any] = field(default_factory=dict)


class Painter(Protocol):
    """Anything that paints prompts."""

    def __call__(self, prompt: str, number: int) -> list[Painted]:
        """Some pictures for the prompt at that place of the list. Raises UserError where it can't."""


def run(config: PaintConfig) -> Path:
    """Paint, rank and write; returns the folder. A prompt that can't be painted is told and left out."""
    asked = _prompts(config)
    painter = _painter(config)
    ranker = _ranker(config)
    done = _done(config.out)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    with Line("painting", len(asked), len([one for one in range(len(asked)) if _name(one) in done])) as line:
        for number, (prompt, question) in enumerate(asked):
            if _name(number) in done:
                rows.append(done[_name(number)])
                continue
            try:
                row = _paint(config, painter, ranker, number, prompt, question)
            except UserError as error:
                left_out.append(f"prompt {number + 1}: {error}")
                continue
            rows.append(row)
            _write(config.out, rows)
            line.advance()
    for reason in left_out[:10]:
        print(f"Warning: {reason}")
    if not rows:
        raise UserError(f"{config.prompts}: none of {len(asked)} prompts could be painted; see the warnings above.")
    _write(config.out, rows)
    print(f"{len(rows)} of {len(asked)} prompts are painted; pictures and {METADATA} are in {config.out}")
    return config.out


def _paint(
    config: PaintConfig, painter: Painter, ranker: ImageTextJudge | None, number: int, prompt: str, question: str
) -> dict[str, Any]:
    pictures = painter(prompt, number)
    path = config.out / "images" / f"{_name(number)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = _scores(ranker, pictures, prompt, config.out) if ranker is not None and len(pictures) > 1 else []
    best = max(range(len(pictures)), key=scores.__getitem__) if scores else 0
    write_whole(path, pictures[best].png, lasting=False)
    return {
        "file_name": f"images/{path.name}",
        "id": _name(number),
        "prompt": question or config.ask,
        "painted_for": prompt,
        "painter": config.model or config.painter,
        **({"image_rewards": scores} if scores else {}),
        **pictures[best].known,
    }


def _scores(ranker: ImageTextJudge, pictures: Sequence[Painted], prompt: str, out: Path) -> list[float]:
    from veridical.judges.interface import Rate

    requests = []
    for place, one in enumerate(pictures):
        path = out / "images" / f".candidate-{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, one.png, lasting=False)
        asked = (Message("user", prompt),)
        requests.append(Rate(Record(f"candidate {place}", (ImageFile(path, ""),), asked), asked, prompt))
    rates = ranker.rate(requests)
    for request in requests:
        request.record.images[0].path.unlink()
    return [float("-inf") if isinstance(rate, Exception) else rate for rate in rates]


def _painter(config: PaintConfig) -> Painter:
    if config.painter == "world":
        return lambda prompt, number: [
            _draw(prompt, f"paint-{config.seed}-{number}-{k}") for k in range(config.candidates)
        ]
    from veridical.http_client import check_url

    if not config.url or not config.model:
        raise UserError("data paint: give --url and --model of a text-to-image endpoint, or --painter world.")
    check_url(config.url, "painter")
    return lambda prompt, _: _asked(config, prompt)


def _draw(prompt: str, key: str) -> Painted:
    """A picture of the world's of what a text of its grammar names. Raises UserError for another text."""
    from veridical.world.captions import parse
    from veridical.world.drawing import draw
    from veridical.world.scenes import scene_of

    plan = parse(prompt)
    if plan is None:
        raise UserError(f"the picture world can't draw {prompt!r}; it draws texts such as its own captions.")
    names = [name for sentence in plan.sentences for name, count in sentence.items for _ in range(count)]
    scene = scene_of(plan.theme, names, key)
    buffer = io.BytesIO()
    draw(scene).save(buffer, "PNG")
    return Painted(
        buffer.getvalue(), {"objects": [{"name": o.name, "box": o.box} for o in scene.objects], "scene": plan.theme}
    )


def _asked(config: PaintConfig, prompt: str) -> list[Painted]:
    """Pictures of an endpoint, asked again where it may help. Raises UserError where it gives none."""
    import httpx

    from veridical.http_client import read_key

    key = read_key(config.key_variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": config.model, "prompt": prompt, "n": config.candidates, "size": config.size,
            "response_format": "b64_json"}  # fmt: skip
    wait, reason = config.first_wait, ""
    for attempt in range(config.tries):
        if attempt:
            time.sleep(wait + random.Random(f"{prompt}/{attempt}").random() * wait)
            wait *= 2
        try:
            url = f"{config.url.rstrip('/')}/images/generations"
            reply = httpx.post(url, json=body, headers=headers, timeout=config.timeout)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        if reply.status_code in _PASSING:
            reason = f"status {reply.status_code}"
            continue
        if reply.status_code != 200:
            raise UserError(f"{config.url} answers with status {reply.status_code}: {reply.text[:200]}")
        try:
            return _pictures(reply.content)
        except (ValueError, KeyError, TypeError, OSError, binascii.Error) as error:
            reason = f"its reply holds no pictures ({error})"
    raise UserError(f"{config.url} gives no picture after {config.tries} tries: {reason}")


def _pictures(content: bytes) -> list[Painted]:
    from PIL import Image

    pictures = []
    for row in json.loads(content)["data"]:
        picture = Image.open(io.BytesIO(base64.b64decode(row["b64_json"], validate=True))).convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        pictures.append(Painted(buffer.getvalue()))
    if not pictures:
        raise ValueError("data is empty")
    return pictures


def _ranker(config: PaintConfig) -> ImageTextJudge | None:
    if not config.ranker:
        return None
    from veridical.judges.image_text import ImageTextSettings
    from veridical.judges.registry import JudgeContext

    return ImageTextSettings(model=config.ranker, device=config.device).open(JudgeContext())


def _prompts(config: PaintConfig) -> list[tuple[str, str]]:
    """Prompts and the questions about their pictures."""
    if Path(config.prompts) != Path("world"):
        return list(_read(Path(config.prompts)))[: config.limit]
    from veridical.world.captions import caption
    from veridical.world.scenes import scenes

    drawn = scenes("pairs", config.limit or 100, config.seed)
    return [(caption(scene, random.Random(f"paint/{scene.key}")), "") for scene in drawn]


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """Prompts and the questions about their pictures, "" for none. Raises UserError for an unreadable file."""
    try:
        lines = [line for line in path.expanduser().read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); it holds a prompt a line.") from error
    if not lines:
        raise UserError(f"{path}: holds no prompts; write one a line.")
    for number, line in enumerate(lines, start=1):
        if path.suffix != ".jsonl":
            yield line.strip(), ""
            continue
        try:
            row = json.loads(line)
            yield str(row["prompt"]), str(row.get("question") or "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{path}, line {number}: is not like {{"prompt": "a cat", "question": "..."}}.') from error


def _done(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of an earlier start whose pictures are there, by id."""
    path = out / METADATA
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row for row in rows if (out / row["file_name"]).exists()}


def _write(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(out / METADATA, text.encode())


def _name(number: int) -> str:
    return f"painted-{number:06d}"
