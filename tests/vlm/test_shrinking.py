"""Batches that shrink when memory really runs out: a process that may take no more than a little beyond what it has."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from veridical.align.config import AlignConfig
from veridical.vlm.shrinking import BatchLimit, OutOfMemory, is_out_of_memory, run_in_batches

LIMITED = """
import json, resource, sys, warnings
import torch
torch.set_num_threads(1)

def limit(megabytes):
    used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
"""


def limited(script: str, *arguments: str) -> dict:
    """What a script prints as JSON; it can call `limit(megabytes)` to have no more than that to spare."""
    source = LIMITED + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_batch_halves_until_it_fits_and_stays_so():
    found = limited(
        """
        from veridical.vlm.shrinking import BatchLimit, OutOfMemory, run_in_batches
        sizes = []

        def run(items):
            sizes.append(len(items))
            return [i + torch.ones(len(items) * 16 * 2**20 // 4).sum().item() * 0 for i in items]

        limit(100)
        batch = BatchLimit(16, "images", "--batch-size")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            results = run_in_batches(run, list(range(20)), batch)
        try:
            run_in_batches(lambda items: torch.ones(2**28), [1], batch)
            refused = ""
        except OutOfMemory as error:
            refused = str(error)
        print(json.dumps([results, sizes, batch.size, [str(one.message) for one in said], refused]))
        """
    )
    results, sizes, size, said, refused = found
    assert results == list(range(20))
    assert sizes[:2] == [16, 8]
    assert 1 <= size <= 6
    assert sizes[-5:].count(size) >= 4
    assert said[-1].startswith("memory ran out with")
    assert said[-1].endswith(f"Give --batch-size {size} to start with that.")
    assert "a single one of the images" in refused


def test_a_build_goes_through_with_less_memory_than_its_batch_needs(llava_folder, tmp_path):
    script = """
        import hashlib
        from pathlib import Path
        import PIL.Image
        from veridical.constructions.protocol import Score
        from veridical.generators.local import LocalGenerator
        from veridical.pairs.engine import Engine
        from veridical.records import ImageFile, Message
        from veridical.vlm.inputs.context import Context
        from veridical.vlm.load import load

        vlm = load(sys.argv[1])
        prompt = (Message("user", "Describe this image."),)
        images = []
        for i in range(24):
            path = Path(sys.argv[3]) / f"{i}.png"
            PIL.Image.new("RGB", (40, 40), (i * 10, 9, 9)).save(path)
            images.append(ImageFile(path, hashlib.sha256(path.read_bytes()).hexdigest()))
        contexts = [Context((image,), prompt, key=(image.sha256,)) for image in images]
        requests = [Score(one, ("There is a fork and a knife on the table. " * 12,) * 12) for one in contexts]
        engine = Engine(LocalGenerator(vlm), None)
        engine(requests[:1])
        if sys.argv[2] != "0":
            limit(int(sys.argv[2]))
        answers = engine(requests)
        print(json.dumps([[sum(one.policy) for one in answer] for answer in answers] + [engine.generator.limit.size]))
    """
    *wanted, unlimited = limited(script, str(llava_folder), "0", str(tmp_path))
    *found, size = limited(script, str(llava_folder), "30", str(tmp_path))
    assert unlimited == sys.maxsize
    assert size < 24
    assert [x for row in found for x in row] == pytest.approx([x for row in wanted for x in row], rel=1e-5)


def test_other_errors_are_not_taken_for_memory():
    def broken(items):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_in_batches(broken, [1, 2], BatchLimit(2, "images", "--batch-size"))
    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(OutOfMemory):
        BatchLimit(1, "images", "--batch-size").halve(1)


@pytest.mark.parametrize("batch", [15, 16, 12, 7])
def test_what_is_advised_is_accepted(batch, recwarn):
    """Halving 15 gives 7, which doesn't divide 15, so that `align` would refuse it."""
    limit = BatchLimit(batch, "pairs", "--micro-batch", whole=batch)
    while limit.size > 1:
        limit.halve(limit.size)
        assert batch % limit.size == 0
        assert f"Give --micro-batch {limit.size} " in str(recwarn.pop().message)
        AlignConfig(pairs=Path("pairs"), out=Path("out"), batch_size=batch, micro_batch=limit.size)
