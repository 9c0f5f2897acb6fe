"""The format in the documentation, exactly as printed there, is read by its place."""

import json
import re
from pathlib import Path

from PIL import Image

from veridical.pairs.dataset import read_pairs
from veridical.pairs.importing import ImportConfig, import_published

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def test_a_format_of_ones_own(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "my_format.py").write_text(code)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    row = {"key": "7", "picture": "a.png", "ask": "What is it?", "good": "A cup.", "bad": "A cat.", "more": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    place = f"{tmp_path / 'my_format.py'}:FORMAT"
    manifest = import_published(ImportConfig((place, str(tmp_path / "rows.jsonl")), tmp_path / "out"))
    (pair,) = read_pairs(tmp_path / "out")
    assert (pair.id, pair.chosen, pair.rejected) == ("mine/7", "A cup.", "A cat.")
    assert manifest["import"]["unknown_fields"] == {"more": 1}
