"""JSON read value by value is what json.loads makes of the whole; one damaged value costs itself only."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veridical.formats.published import json_stream
from veridical.formats.published.json_stream import BadValueError, CutShortError, array_items, members

texts = st.text(st.sampled_from('a"\\{}[],:\n é\U0001f600'), max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(plain, lambda one: st.lists(one, max_size=3) | st.dictionaries(texts, one, max_size=3))


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=5), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_an_array_is_what_the_parser_makes_of_it_whole(found, chunk, ascii_only, indent):
    content = json.dumps(found, ensure_ascii=ascii_only, indent=indent).encode()
    before, json_stream.CHUNK = json_stream.CHUNK, chunk
    try:
        assert list(array_items(io.BytesIO(content))) == found
        assert dict(members(io.BytesIO(b'{"a": ' + content + b', "b": 1}'))) == {"a": found, "b": 1}
    finally:
        json_stream.CHUNK = before


@pytest.mark.parametrize("damage", ['{"a": }', "nope", '"bad\\q"', '{"a": 1,}', "[" * 9000 + "]" * 9000])
def test_a_damaged_value_is_one_value(damage):
    one, bad, other, raw = array_items(
        io.BytesIO(f'[{{"good": NaN}}, {damage}, {{"good": "\\ud800"}}, "x\n\t"]'.encode())
    )
    assert str(one) == "{'good': nan}"
    assert isinstance(bad, BadValueError)
    assert (other, raw) == ({"good": "\ud800"}, "x\n\t")


@pytest.mark.parametrize("content", [b"[1, 2", b"[", b'[{"a": "x', b"[1}", b"[1] [2]", b"x", b'{"a": 1'])
def test_a_file_that_is_cut_short_is_no_list(content):
    with pytest.raises(CutShortError):
        list(members(io.BytesIO(content)) if content[:1] == b"{" else array_items(io.BytesIO(content)))
