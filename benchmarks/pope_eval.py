"""POPE's shape (6 questions a picture in 3 settings) against one `generate` a question, interleaved in one process.

    python benchmarks/pope_eval.py                       the bundled model, 500 pictures
    python benchmarks/pope_eval.py llava-shaped --pictures 4     576 image tokens, 40 M parameters
    python benchmarks/pope_eval.py FOLDER --pictures 50  any model

Prints milliseconds a question for `generate`, for text answers by veridical and for yes/no scoring; the ratios; how
many answers are the same; how many pictures went through the tower; and the ratio that the tokens alone allow. The
peer answers the questions of `--peer` pictures, by the same weights, at batch size 1, as evaluation scripts do.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from stand_ins import llava_shaped
from veridical.judges.claims import exists
from veridical.protocols.annotated.pope import SETTINGS
from veridical.protocols.answering import answer
from veridical.protocols.benchmark_task import YES_NO
from veridical.protocols.eval_task import Request
from veridical.protocols.replies import Replies, open_store
from veridical.records import Message, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.files import open_image
from veridical.vlm.load import load
from veridical.vlm.model.chat import messages
from veridical.vlm.model.loading import Vlm
from veridical.world.records import world_records
from veridical.world.vocabulary import CLASSES

TEXT = SamplingParams(max_new_tokens=16, temperature=0.0)
PER_SETTING = 6


def questions(record: Record) -> list[str]:
    """Six objects in each of three settings, 18 in all: those of the picture first, the same in every setting."""
    present = sorted(record.annotations.names)[:3]
    found = []
    for setting in SETTINGS:
        rng = random.Random(f"{setting}/{record.id}")
        absent = [name for name in CLASSES if name not in record.annotations.names]
        found += present + rng.sample(absent, PER_SETTING - len(present))
    return found


def requests(records: Sequence[Record], choices: tuple[str, ...] = ()) -> list[Request]:
    """One request a question, in order."""
    return [
        Request(r.images, (Message("user", exists(name)),), TEXT, choices=choices)
        for r in records
        for name in questions(r)
    ]


@contextmanager
def counting_images(vlm: Vlm) -> Iterator[list[int]]:
    """How many images the vision tower sees, call by call."""
    inner = vlm.model.model
    tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
    seen: list[int] = []

    def count(_module, positional, named):
        grid = named.get("grid_thw")
        seen.append(len(grid if grid is not None else [*positional, *named.values()][0]))

    hook = tower.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def ours(vlm: Vlm, asked: Sequence[Request], folder: Path, batch: int) -> tuple[list, float]:
    """Replies and seconds."""
    replies = Replies(open_store(folder), vlm.fingerprint)
    started = time.perf_counter()
    answer(vlm, asked, replies, batch, lambda _: None)
    seconds = time.perf_counter() - started
    known = replies.find(request.digest() for request in asked)
    return [known[request.digest()] for request in asked], seconds


def peers(vlm: Vlm, asked: Sequence[Request]) -> tuple[list[str], float]:
    """The same by `generate`, question by question."""
    texts = []
    started = time.perf_counter()
    for request in asked:
        conversation = messages(request.prompt, [open_image(image) for image in request.images])
        inputs = vlm.processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(vlm.model.device)
        with torch.no_grad():
            ids = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=TEXT.max_new_tokens)
        texts.append(vlm.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts, time.perf_counter() - started


def tokens(vlm: Vlm, records: Sequence[Record], texts: Sequence[str]) -> tuple[float, float]:
    """Tokens that the language model reads for `generate` and with sharing; the tower's work as tokens of it."""
    from veridical.vlm.inputs.context import Context
    from veridical.vlm.prefix.shared_prompt import _shared_starts, prepare_together

    asked = requests(records)
    contexts = list(dict.fromkeys(Context(request.images, request.prompt) for request in asked))
    prepared, members = prepare_together(vlm, contexts)
    shared_starts = _shared_starts(vlm, prepared, members) or []
    inner = vlm.model.model
    tower = inner.visual if hasattr(inner, "visual") else inner.vision_tower
    size = sum(p.numel() for p in tower.parameters()) / sum(p.numel() for p in inner.language_model.parameters())
    patches = max(one.placeholders for one in prepared)
    new = {(r.images, r.prompt): len(vlm.tokenizer(t, add_special_tokens=False).input_ids) + 1
           for r, t in zip(asked, texts, strict=True)}  # fmt: skip
    length = {(c.images, c.prompt): one.length for c, one in zip(contexts, prepared, strict=True)}
    alone = sum(length[r.images, r.prompt] + new[r.images, r.prompt] + size * patches for r in asked)
    shared = sum(t.length + size * patches for t in shared_starts)
    shared += sum(prepared[i].length - t.length for t in shared_starts for i in t.members) + sum(new.values())
    return alone, shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="bundled")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--peer", type=int, default=20, help="pictures whose questions `generate` answers, too")
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        vlm = load(llava_shaped(folder / "model") if given.model == "llava-shaped" else given.model, device="cpu")
        records = world_records("dev", given.pictures, 0, folder / "pictures")
        compare(vlm, records, min(given.peer, given.pictures), given.batch, folder)


def compare(vlm: Vlm, records: Sequence[Record], peer: int, batch: int, folder: Path) -> None:
    size = sum(p.numel() for p in vlm.model.parameters()) / 1e6
    print(f"{vlm.family}, {size:.1f} M parameters, {torch.get_num_threads()} thread(s)")
    peers(vlm, requests(records[:1])[:2])
    theirs, texts, their_seconds, our_seconds = [], [], 0.0, 0.0
    # Interleaved, so that a machine whose load changes treats both alike.
    for start in range(0, peer, 4):
        asked = requests(records[start : min(start + 4, peer)])
        found, seconds = peers(vlm, asked)
        theirs += found
        their_seconds += seconds
        found, seconds = ours(vlm, asked, folder / f"part-{start}", batch)
        texts += found
        our_seconds += seconds
    each = 1000 / len(theirs)
    same = sum(a.strip() == b.strip() for a, b in zip(theirs, texts, strict=True))
    print(f"generate, one by one     {their_seconds * each:8.2f} ms a question ({len(theirs)} questions)")
    print(f"shared, the same         {our_seconds * each:8.2f} ms    ratio {their_seconds / our_seconds:.1f}")
    print(f"same answers: {same} of {len(theirs)}")
    alone, shared = tokens(vlm, records[:peer], texts)
    print(f"by tokens alone the ratio is {alone / shared:.1f}")
    for label, choices in (("text", ()), ("yes/no scoring", YES_NO)):
        asked = requests(records, choices)
        with counting_images(vlm) as seen:
            found, seconds = ours(vlm, asked, folder / f"all-{label[:4]}", batch)
        ms = 1000 * seconds / len(asked)
        print(
            f"all {len(records)} pictures, {label:<14} {ms:6.2f} ms a question, ratio {their_seconds * each / ms:.1f}; "
            f"images through the tower: {sum(seen)}, 4 of them to check that sharing is exact"
        )
        texts = found if not choices else texts
    agree = sum(
        text.lower().startswith("yes" if yes > no else "no") for text, (yes, no) in zip(texts, found, strict=True)
    )
    print(f"text and yes/no scoring agree on {agree} of {len(found)}")


if __name__ == "__main__":
    main()
