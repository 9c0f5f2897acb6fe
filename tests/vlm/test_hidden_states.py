"""Hidden states are those that the model predicts its first answer token from."""

import pytest
import torch
from tests.models import tiny_llava, tiny_qwen2_vl

from veridical.records import Message
from veridical.vlm.inputs.context import Context
from veridical.vlm.load import load
from veridical.vlm.prefix.encode import encode
from veridical.vlm.scores.hidden_states import hidden_states
from veridical.vlm.scores.scoring import next_token_logprobs
from veridical.world.drawing import draw
from veridical.world.scenes import scenes


@pytest.mark.parametrize("build", [tiny_llava, tiny_qwen2_vl])
def test_the_last_layer_under_the_model_s_head_predicts_the_first_token(tmp_path, build):
    vlm = load(build(tmp_path / "model"))
    pictures = [draw(scene) for scene in scenes("dev", 2)]
    contexts = [
        Context((pictures[0],), (Message("user", "Is there a fork in the image?"),)),
        Context((pictures[1],), (Message("user", "Describe."),)),
    ]
    states = hidden_states(vlm, contexts)
    assert states.shape == (2, 4, 48)
    with torch.no_grad():
        scores = torch.log_softmax(vlm.model.get_output_embeddings()(states[:, -1]), -1)
        expected = next_token_logprobs(vlm, encode(vlm, contexts), ["Yes", "No"])
    words = [vlm.tokenizer(text, add_special_tokens=False).input_ids[0] for text in ("Yes", "No")]
    assert torch.allclose(scores[:, words], expected, atol=1e-4)


def test_hidden_states_do_not_depend_on_the_batch_and_do_on_the_image(tmp_path):
    vlm = load(tiny_llava(tmp_path / "model"))
    pictures = [draw(scene) for scene in scenes("dev", 2)]
    question = (Message("user", "Is there a fork in the image?"),)
    contexts = [Context((pictures[0],), question), Context((pictures[1],), (*question, Message("user", "Well?")))]
    together = hidden_states(vlm, contexts)
    alone = torch.cat([hidden_states(vlm, [context]) for context in contexts])
    assert torch.allclose(together, alone, atol=1e-4)
    other = hidden_states(vlm, [Context((pictures[1],), question)])
    assert torch.equal(other[:, 0], alone[:1, 0])
    assert (other[:, 1:] - alone[:1, 1:]).abs().amax(-1).min() > 1e-3
