"""A tiny model that has learnt to caption the picture world, badly: it speaks its grammar and makes things up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from veridical.records import Record

STEPS = 150


@pytest.fixture(scope="session")
def captioner_folder(llava_folder: Path, tmp_path_factory) -> Path:
    """Trained on the captions of 12 scenes, until it says them whatever it is shown."""
    from veridical.vlm.load import load
    from veridical.world.records import world_records

    vlm = load(llava_folder, device="cpu")
    records = world_records("pairs", 12, 7, tmp_path_factory.mktemp("scenes"))
    batch = _batch(vlm.processor, records)
    vlm.model.requires_grad_(True).train()
    with torch.no_grad():  # the test model's wide weights make every picture a shock; calmer ones learn to speak
        for parameter in vlm.model.parameters():
            parameter.mul_(0.2 if parameter.ndim > 1 else 1.0)
    optimizer = torch.optim.AdamW(vlm.model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        loss = vlm.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    folder = tmp_path_factory.mktemp("captioner")
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def _batch(processor, records: list[Record]):
    from veridical.vlm.images.files import open_image

    texts = [f"<|user|><image>{r.prompt[0].text}<|end|><|assistant|>{r.reference}<|end|>" for r in records]
    images = [open_image(record.images[0]) for record in records]
    batch = processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].clone()
    starts = (labels == processor.tokenizer.convert_tokens_to_ids("<|assistant|>")).int().argmax(1)
    labels[torch.arange(labels.shape[1])[None] <= starts[:, None]] = -100
    labels[batch["attention_mask"] == 0] = -100
    return {**batch, "labels": labels}
