"""Draws scenes: a themed background in plain shapes, and sprites from Noto Emoji on it."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from io import BytesIO
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageEnhance

from veridical.world.scenes import CANVAS, Placed, Scene
from veridical.world.vocabulary import CLASSES

Colour = tuple[int, int, int]


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene, RGB, 192 x 192 pixels. The same scene always gives the same pixels."""
    picture = _background(scene.theme.name, scene.background)
    for placed in scene.objects:
        sprite = _sprite_as_placed(placed)
        picture.paste(sprite, _corner(placed, sprite), sprite)
    return picture


def label_map(scene: Scene) -> Image.Image:
    """Which class every pixel of the picture shows: its index in CLASSES plus one, 0 for background ("L")."""
    labels = Image.new("L", (CANVAS, CANVAS))
    for placed in scene.objects:
        sprite = _sprite_as_placed(placed)
        opaque = sprite.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0)
        labels.paste(CLASSES.index(placed.name) + 1, _corner(placed, sprite), opaque)
    return labels


def _corner(placed: Placed, sprite: Image.Image) -> tuple[int, int]:
    return round(placed.x - sprite.width / 2), round(placed.y - sprite.height / 2)


def _sprite_as_placed(placed: Placed) -> Image.Image:
    sprite = _sprite(placed.name)
    scale = placed.size / max(sprite.size)
    sprite = sprite.resize((max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale))))
    if placed.flipped:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alpha = sprite.getchannel("A")
    lit = ImageEnhance.Brightness(sprite.convert("RGB")).enhance(placed.brightness)
    lit.putalpha(alpha)
    return lit.rotate(placed.angle, resample=Image.Resampling.BILINEAR, expand=True)


@cache
def _sprite(name: str) -> Image.Image:
    data = resources.files("veridical.world").joinpath("sprites").joinpath(f"{name}.png").read_bytes()
    return Image.open(BytesIO(data)).convert("RGBA")


def _background(theme: str, seed: int) -> Image.Image:
    rng = random.Random(seed)
    picture = Image.new("RGB", (CANVAS, CANVAS))
    _PAINTERS[theme](ImageDraw.Draw(picture), rng)
    return picture


def _colour(rng: random.Random, hue: float, saturation: float, value: float, spread: float = 0.05) -> Colour:
    """A colour near the given hue, saturation and value, all in [0, 1]."""
    h = (hue + rng.uniform(-spread, spread)) % 1
    s = min(1.0, max(0.0, saturation + rng.uniform(-spread, spread)))
    v = min(1.0, max(0.0, value + rng.uniform(-spread, spread)))
    r, g, b = colorsys.hsv_to_rgb(h, s, v)
    return round(r * 255), round(g * 255), round(b * 255)


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, round(channel * factor)) for channel in colour)
    return r, g, b


def _table(canvas: ImageDraw.ImageDraw, rng: random.Random) -> None:
    wood = _colour(rng, 0.08, 0.45, 0.72)
    canvas.rectangle((0, 0, CANVAS, CANVAS), fill=wood)
    plank = rng.randint(26, 44)
    for x in range(rng.randint(-20, 0), CANVAS, plank):
        canvas.rectangle((x, 0, x + plank, CANVAS), fill=_shade(wood, rng.uniform(0.94, 1.06)))
        canvas.line((x, 0, x, CANVAS), fill=_shade(wood, 0.82))


def _desk(canvas: ImageDraw.ImageDraw, rng: random.Random) -> None:
    wall, top = _colour(rng, 0.6, 0.12, 0.86), _colour(rng, 0.1, 0.18, 0.62)
    edge = rng.randint(50, 90)
    canvas.rectangle((0, 0, CANVAS, edge), fill=wall)
    canvas.rectangle((0, edge, CANVAS, CANVAS), fill=top)
    canvas.rectangle((0, edge, CANVAS, edge + 4), fill=_shade(top, 0.8))


def _street(canvas: ImageDraw.ImageDraw, rng: random.Random) -> None:
    sky, road = _colour(rng, 0.58, 0.22, 0.88), _colour(rng, 0.6, 0.04, 0.5)
    kerb = rng.randint(60, 90)
    canvas.rectangle((0, 0, CANVAS, kerb), fill=sky)
    x = rng.randint(-20, 0)
    while x < CANVAS:
        width, height = rng.randint(24, 44), rng.randint(20, kerb)
        canvas.rectangle((x, kerb - height, x + width, kerb), fill=_colour(rng, 0.07, 0.14, 0.7, 0.08))
        x += width + 3
    canvas.rectangle((0, kerb, CANVAS, CANVAS), fill=road)
    lane = rng.randint(kerb + 40, 160)
    for x in range(rng.randint(-20, 0), CANVAS, 40):
        canvas.rectangle((x, lane, x + 20, lane + 4), fill=(226, 222, 205))


def _farm(canvas: ImageDraw.ImageDraw, rng: random.Random) -> None:
    sky, grass = _colour(rng, 0.56, 0.3, 0.92), _colour(rng, 0.29, 0.42, 0.66)
    horizon = rng.randint(44, 76)
    canvas.rectangle((0, 0, CANVAS, horizon), fill=sky)
    canvas.rectangle((0, horizon, CANVAS, CANVAS), fill=grass)
    for _ in range(70):
        x, y = rng.randrange(CANVAS), rng.randint(horizon + 4, CANVAS)
        canvas.line((x, y, x + rng.randint(-2, 2), y - 5), fill=_shade(grass, rng.choice((0.86, 1.12))))
    for x in range(rng.randint(-10, 0), CANVAS, 22):
        canvas.rectangle((x, horizon - 10, x + 3, horizon + 6), fill=(150, 116, 84))
    canvas.rectangle((0, horizon - 6, CANVAS, horizon - 4), fill=(150, 116, 84))


def _beach(canvas: ImageDraw.ImageDraw, rng: random.Random) -> None:
    sky, sea, sand = _colour(rng, 0.55, 0.25, 0.95), _colour(rng, 0.52, 0.5, 0.75), _colour(rng, 0.12, 0.32, 0.92)
    horizon = rng.randint(34, 56)
    shore = horizon + rng.randint(22, 44)
    canvas.rectangle((0, 0, CANVAS, horizon), fill=sky)
    canvas.rectangle((0, horizon, CANVAS, shore), fill=sea)
    canvas.rectangle((0, shore, CANVAS, CANVAS), fill=sand)
    canvas.rectangle((0, shore - 3, CANVAS, shore + 1), fill=(240, 246, 246))
    for _ in range(60):
        x, y = rng.randrange(CANVAS), rng.randint(shore + 3, CANVAS)
        canvas.point((x, y), fill=_shade(sand, 0.85))


def _bathroom(canvas: ImageDraw.ImageDraw, rng: random.Random) -> None:
    tile = _colour(rng, 0.5, 0.12, 0.9)
    floor = _colour(rng, 0.55, 0.08, 0.72)
    side, edge = rng.randint(22, 34), rng.randint(110, 150)
    canvas.rectangle((0, 0, CANVAS, edge), fill=tile)
    for k in range(0, CANVAS, side):
        canvas.line((k, 0, k, edge), fill=_shade(tile, 0.9))
        if k < edge:
            canvas.line((0, k, CANVAS, k), fill=_shade(tile, 0.9))
    canvas.rectangle((0, edge, CANVAS, CANVAS), fill=floor)


_PAINTERS: Mapping[str, Callable[[ImageDraw.ImageDraw, random.Random], None]] = MappingProxyType(
    {"table": _table, "desk": _desk, "street": _street, "farm": _farm, "beach": _beach, "bathroom": _bathroom}
)
