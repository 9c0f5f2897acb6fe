"""From images and prompt turns to the tensors a model takes: the part that runs on the CPU, once per record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from veridical.errors import UserError, panics_as_errors
from veridical.records import ImageFile
from veridical.vlm import seeds
from veridical.vlm.images import perturb, views
from veridical.vlm.images.files import ImageError, open_image
from veridical.vlm.inputs.context import Context, Prepared, PromptError, cut, describes_images, name
from veridical.vlm.model import chat

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


def prepare(
    vlm: Vlm,
    context: Context,
    opens: Callable[[ImageFile], Image] = open_image,
    images: Sequence[Image] | None = None,
) -> Prepared:
    """Decode, view and process a context's images and tokenise its prompt; `images` are as `shown` gives them.

    Data-loader workers may call it: it touches the processor only, not the model. `opens` may remember images that
    several contexts show. Raises `ImageError` for an image that can't be used, `PromptError` for a prompt that can't
    be rendered or doesn't match its images, and `UserError` for a view that the model can't have.
    For a model with an answer-only adapter the invocation tokens are left off: see `vlm/model/alora.py`.
    """
    refuse_control_tokens(vlm, context)
    _refuse_images(vlm, context)
    _refuse_view(vlm, context)
    return without_invocation_tokens(vlm, _prepare(vlm, context, shown(context, opens) if images is None else images))


def _prepare(vlm: Vlm, context: Context, images: Sequence[Image]) -> Prepared:
    noise = None
    if images and isinstance(context.view, views.Noise):
        noise = perturb.NoisyProcessor(vlm.processor, context.view, context.key)
    rendered(vlm, context, images)
    conversation = chat.messages(context.prompt, images, vlm.traits.chat.plain)
    try:
        with panics_as_errors():
            tensors = (noise.processor if noise else vlm.processor).apply_chat_template(
                conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
    except Exception as error:  # processors and templates raise whatever their authors chose
        raise PromptError(
            name(context.key),
            "prompt-refused",
            f"the processor refuses the prompt or its images: {_said(error)}",
            "Give the images that the prompt speaks of, or mend the model's chat template",
        ) from error
    if noise:
        noise.check()
    tensors.pop("labels", None)
    placeholders = count_placeholders(vlm, context, tensors["input_ids"], len(images))
    if images and isinstance(context.view, views.UnknownToken):
        return Prepared(_unknown_in_place(vlm, tensors, len(images)), 0, context)
    return Prepared(dict(tensors), placeholders, context, hidden(vlm, context, tensors["input_ids"]))


def shown(context: Context, opens: Callable[[ImageFile], Image] = open_image) -> list[Image]:
    """A context's pictures as its view shows them; none where it shows no image. Raises `ImageError`."""
    if isinstance(context.view, views.NoImage):
        return []
    random = seeds.generator("picture", context.key)
    try:
        opened = [opens(i) if isinstance(i, ImageFile) else i.convert("RGB") for i in context.images]
    except ImageError as error:
        raise error.of(name(context.key)) from error
    return [perturb.picture(image, context.view, random) for image in opened]


def rendered(vlm: Vlm, context: Context, images: Sequence[Any]) -> str:
    """The prompt as the chat template writes it; raises `PromptError` where it refuses a turn or leaves one out."""
    conversation = chat.messages(context.prompt, images, vlm.traits.chat.plain)
    try:
        text = str(vlm.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False))
    except Exception as error:  # a template raises whatever its author chose
        raise PromptError(
            name(context.key),
            "template-refuses-prompt",
            f"the chat template of {vlm.name} refuses the prompt: {_said(error)}",
            "Leave out the turn that it speaks of (many templates take no system turn), or mend the template",
        ) from error
    if (turn := chat.left_out(context.prompt, text)) is not None:
        raise PromptError(
            name(context.key),
            "turn-left-out",
            f"the chat template of {vlm.name} leaves out the {turn.role} turn {turn.text[:60]!r}",
            "Leave that turn out, or mend the template",
        )
    return text


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def refuse_control_tokens(vlm: Vlm, context: Context) -> None:
    """Raise `PromptError` where a prompt's text holds an image placeholder, or a token that ends or opens a turn."""
    for turn in context.prompt:
        ids = set(vlm.tokenizer(turn.text, add_special_tokens=False).input_ids)
        if tokens := vlm.traits.placeholder_ids & ids:
            raise PromptError(
                name(context.key),
                "placeholder-in-prompt",
                f"the prompt contains the placeholder {vlm.tokenizer.convert_ids_to_tokens(min(tokens))!r}",
                "Take it out: images are placed by the model's chat template",
            )
        if tokens := vlm.traits.control_ids & ids:
            raise PromptError(
                name(context.key),
                "special-token-in-prompt",
                f"the prompt's text contains the control token {vlm.tokenizer.convert_ids_to_tokens(min(tokens))!r}",
                "Take it out of the text: turns are marked by the model's chat template",
            )


def count_placeholders(vlm: Vlm, context: Context, ids: Tensor, images: int) -> int:
    """Image placeholders in a rendered prompt; raises `PromptError` where it is too long or lacks them."""
    longest = vlm.traits.max_length
    if longest is not None and ids.shape[1] >= longest:
        raise PromptError(
            name(context.key),
            "prompt-too-long",
            f"prompt and images take {ids.shape[1]} tokens of the model's {longest}",
            "Shorten the prompt or show fewer or smaller images",
        )
    if vlm.traits.image_id is None:
        return 0
    count = int((ids == vlm.traits.image_id).sum())
    if images and not count:
        raise PromptError(
            name(context.key),
            "image-left-out",
            f"the chat template of {vlm.name} leaves out the image",
            "Mend the template",
        )
    return count


def _refuse_images(vlm: Vlm, context: Context) -> None:
    from veridical.vlm.model import families

    if len(context.images) > 1 and vlm.family in families.ONE_IMAGE:
        raise PromptError(
            name(context.key),
            "too-many-images",
            f"{vlm.family} models take one image, and the prompt has {len(context.images)}",
            "Give one, or leave the record out",
        )


def _refuse_view(vlm: Vlm, context: Context) -> None:
    """Raises `UserError` where this model can't have the view, before anything is computed."""
    from veridical.vlm.model import families

    view = context.view
    outside = vlm.traits.image_id is None or vlm.family in families.IMAGE_OUTSIDE_THE_PROMPT
    lacking = ""
    if isinstance(view, views.TokenMask | views.UnknownToken) and outside:
        lacking = f"{vlm.family} models see the image outside the prompt, so it has no tokens to hide or replace there"
    elif isinstance(view, views.FeatureNoise) and not vlm.traits.takes_features:
        lacking = f"{vlm.family} models take no image features from outside"
    elif isinstance(view, views.UnknownToken) and vlm.tokenizer.unk_token_id is None:
        lacking = f"the tokenizer of {vlm.name} has no unknown token"
    if lacking:
        raise UserError(
            f"{name(context.key)}: the view {views.describe(view)!r} is not possible: {lacking}. "
            "Choose another, such as blur, crop or none."
        )


def hidden(vlm: Vlm, context: Context, ids: Tensor) -> Tensor | None:
    """The places of the image tokens that no layer may see, drawn one by one; None where the view hides none."""
    if not isinstance(context.view, views.TokenMask):
        return None
    import torch

    places = _image_places(vlm, ids).nonzero()[:, 0]
    drawn = seeds.generator("token-mask", context.key).random(len(places))
    return places[torch.from_numpy(drawn < context.view.rho)]


def _image_places(vlm: Vlm, ids: Tensor) -> Tensor:
    """Whether each token of a prompt [1, length] holds an image's place, [length]."""
    placed: Tensor = ids[0].eq(-1 if vlm.traits.image_id is None else vlm.traits.image_id)
    return placed


def _unknown_in_place(vlm: Vlm, tensors: Mapping[str, Tensor], images: int) -> dict[str, Tensor]:
    """The prompt with one unknown token for each run of image tokens, and nothing of the images left."""
    import torch

    ids = tensors["input_ids"]
    placed = _image_places(vlm, ids)
    starts = placed & ~placed.roll(1)
    starts[0] = placed[0]
    # Images that follow each other directly make one run.
    copies = torch.ones(len(placed), dtype=torch.long).masked_fill(placed & ~starts, 0)
    copies[starts.nonzero()[:1]] += max(0, images - int(starts.sum()))
    changed = {}
    for key, tensor in tensors.items():
        if tensor.shape[:2] == ids.shape and not describes_images(key):
            filler = vlm.tokenizer.unk_token_id if key == "input_ids" else int(key == "attention_mask")
            replaced = torch.where(placed.view(1, -1, *[1] * (tensor.dim() - 2)), filler, tensor)
            changed[key] = replaced.repeat_interleave(copies, dim=1)
    return changed


def without_invocation_tokens(vlm: Vlm, prepared: Prepared) -> Prepared:
    """Cut the invocation tokens off a context, since they are read with the answers."""
    if not vlm.invocation_tokens:
        return prepared
    length = prepared.length - len(vlm.invocation_tokens)
    if tuple(prepared.tensors["input_ids"][0, length:].tolist()) != vlm.invocation_tokens:
        raise UserError(
            f"{name(prepared.key)}: the prompt doesn't end in the tokens "
            f"{vlm.tokenizer.decode(vlm.invocation_tokens)!r} that the answer-only adapter was trained with. "
            "Use the chat template it was trained with."
        )
    return cut(prepared, length)
