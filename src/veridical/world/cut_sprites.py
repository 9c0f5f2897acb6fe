"""Cuts the picture world's sprites out of the Noto Color Emoji font.

Run once with the font that Debian packages as fonts-noto-color-emoji:
`python -m veridical.world.cut_sprites NotoColorEmoji.ttf FOLDER`
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GLYPHS = {
    "fork": "🍴", "knife": "🔪", "cup": "☕", "spoon": "🥄", "burger": "🍔", "glass": "🥛",
    "laptop": "💻", "mouse": "🖱", "book": "📕", "pencil": "✏", "phone": "📱", "clock": "⏰",
    "car": "🚗", "motorcycle": "🏍", "bus": "🚌", "bicycle": "🚲", "truck": "🚚", "barrier": "🚧",
    "cow": "🐄", "pig": "🐖", "horse": "🐎", "sheep": "🐑", "tractor": "🚜", "rooster": "🐓",
    "umbrella": "⛱", "bucket": "🪣", "boat": "⛵", "shell": "🐚", "palm": "🌴", "crab": "🦀",
    "bathtub": "🛁", "duck": "🦆", "mirror": "🪞", "toothbrush": "🪥", "shower": "🚿", "sponge": "🧽",
}  # fmt: skip

STRIKE = 109
"""The one pixel size that the font's bitmaps have."""
LONGER_SIDE = 88


def cut(font_file: Path, folder: Path) -> None:
    """Write one PNG a class, cropped to what is drawn."""
    font = ImageFont.truetype(str(font_file), STRIKE)
    folder.mkdir(parents=True, exist_ok=True)
    for name, glyph in GLYPHS.items():
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((8, 8), glyph, font=font, embedded_color=True)
        if name == "fork":  # the glyph shows a fork and a knife side by side
            canvas = canvas.crop((0, 0, 8 + 66, 160))
        sprite = canvas.crop(canvas.getbbox())
        sprite.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
        sprite.save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(sys.argv[2]))
