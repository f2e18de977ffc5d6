from __future__ import annotations

import copy

import pytest
import torch
from tiny_duals import CONTEXT, KINDS, SIDE, tiny_model, tiny_tokens

from crossfade.encoders.soft_prompts import SoftPrompts, widened
from crossfade.encoders.tuning import Prompts
from crossfade.errors import NotSupported, UsageError

ATTENTION = ("sdpa", "eager")
CASES = [(kind, attention) for kind in KINDS for attention in ATTENTION]


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def image_features(model, pixels):
    return model.get_image_features(pixel_values=pixels).pooler_output


@torch.no_grad()
def text_features(model, ids, mask):
    return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def block(layer, hidden, seen):
    """One transformer layer with masked attention, written out: hidden (T, d), seen (T, T) booleans."""
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    heads, size = attention.num_heads, attention.head_dim
    q, k, v = (
        getattr(attention, name)(normed).view(-1, heads, size).transpose(0, 1)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    scores = (q @ k.transpose(1, 2) / size**0.5).masked_fill(~seen, float("-inf"))
    mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(hidden), -1)
    hidden = hidden + attention.out_proj(mixed)
    return hidden + layer.mlp(layer.layer_norm2(hidden))


def naive_text(model, ids, length, prompts, causal):
    """A text of `length` tokens with prompts behind its first, one row of (L,) ids."""
    text = model.text_model
    own = text.embeddings(input_ids=ids[None])[0]
    hidden = torch.cat([own[:1], prompts, own[1:]])
    total = len(hidden)
    seen = torch.arange(total)[None, :] < length + len(prompts)
    seen = seen.expand(total, total)
    if causal:
        seen = seen & torch.ones(total, total, dtype=torch.bool).tril()
    for layer in text.encoder.layers:
        hidden = block(layer, hidden, seen)
    hidden = text.final_layer_norm(torch.cat([hidden[:1], hidden[1 + len(prompts) :]]))
    return model.text_projection(hidden[length - 1]) if causal else text.head(hidden[-1])


def naive_image(model, picture, prompts):
    vision = model.vision_model
    hidden = vision.embeddings(picture[None])[0]
    if hasattr(vision, "pre_layrnorm"):
        hidden = vision.pre_layrnorm(hidden)
    own = len(hidden)
    hidden = torch.cat([hidden, prompts])
    for layer in vision.encoder.layers:
        hidden = block(layer, hidden, torch.ones(len(hidden), len(hidden), dtype=torch.bool))
    hidden = hidden[:own]
    if hasattr(model, "visual_projection"):
        return model.visual_projection(vision.post_layernorm(hidden[0]))
    return vision.head(vision.post_layernorm(hidden)[None])[0]


@pytest.mark.parametrize(("kind", "attention"), CASES)
@torch.no_grad()
def test_prompts_are_read_as_if_written_out(kind: str, attention: str) -> None:
    model = tiny_model(kind, attention=attention)
    plain = copy.deepcopy(model)
    prompts = SoftPrompts(model, Prompts(image=3, text=2, std=1.0))
    pixels, (ids, mask) = pictures(), tiny_tokens([4, 7, CONTEXT])
    images, texts = image_features(model, pixels), text_features(model, ids, mask)
    for row in range(3):
        image = naive_image(plain, pixels[row], prompts.image)
        text = naive_text(plain, ids[row], int(mask[row].sum()), prompts.text, kind == "clip")
        torch.testing.assert_close(images[row], image, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(texts[row], text, atol=2e-5, rtol=1e-4)
    assert (images - image_features(plain, pixels)).abs().max() > 0.01
    assert (texts - text_features(plain, ids, mask)).abs().max() > 0.01


@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_a_text_does_not_depend_on_the_padding_beside_it(kind: str, attention: str) -> None:
    model = tiny_model(kind, attention=attention)
    SoftPrompts(model, Prompts(text=3, std=1.0))
    ids, mask = tiny_tokens([5, CONTEXT])
    together = text_features(model, ids, mask)[0]
    if kind == "siglip":  # pools the last position, whatever it is
        alone = text_features(model, ids[:1], mask[:1])[0]
    else:
        alone = text_features(model, ids[:1, :5], mask[:1, :5])[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_off_and_removed_prompts_leave_no_trace(kind: str, attention: str) -> None:
    model = tiny_model(kind, attention=attention)
    pixels, (ids, mask) = pictures(), tiny_tokens([4, 7, CONTEXT])
    images, texts = image_features(model, pixels), text_features(model, ids, mask)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    prompts = SoftPrompts(model, Prompts(std=1.0))
    with prompts.off():
        assert torch.equal(image_features(model, pixels), images)
        assert torch.equal(text_features(model, ids, mask), texts)
    changed = image_features(model, pixels)
    assert not torch.equal(changed, images)
    prompts.remove()
    assert torch.equal(image_features(model, pixels), images)
    assert torch.equal(text_features(model, ids, mask), texts)
    prompts.attach()
    prompts.attach()
    assert torch.equal(image_features(model, pixels), changed)
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_each_tower_has_its_own(kind: str) -> None:
    model = tiny_model(kind)
    pixels, (ids, mask) = pictures(), tiny_tokens([4, 7])
    images, texts = image_features(model, pixels), text_features(model, ids, mask)
    only_text = SoftPrompts(model, Prompts(image=0, text=2, std=1.0))
    assert [name for name, _ in only_text.named_parameters()] == ["text"]
    assert torch.equal(image_features(model, pixels), images)
    assert not torch.equal(text_features(model, ids, mask), texts)
    only_text.remove()
    SoftPrompts(model, Prompts(image=2, text=0, std=1.0))
    assert not torch.equal(image_features(model, pixels), images)
    assert torch.equal(text_features(model, ids, mask), texts)


def test_gradients_reach_the_prompts() -> None:
    model = tiny_model("clip").requires_grad_(False)
    prompts = SoftPrompts(model, Prompts())
    ids, mask = tiny_tokens([4, 7])
    output = model.get_image_features(pixel_values=pictures(2)).pooler_output
    output = output * model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    torch.nn.functional.normalize(output).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in prompts.parameters())
    assert all(value.grad is None for value in model.parameters())


def test_causal_masks_stay_causal() -> None:
    seen = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    seen[..., 2] = False  # padding
    wider = widened(seen, 1, 2, causal=True)[0, 0].int().tolist()
    assert wider == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    added = torch.zeros(1, 1, 2, 2).masked_fill(torch.tensor([[False, True]] * 2), -1e9)
    assert widened(added, 1, 1, causal=False)[0, 0].tolist() == [[0, 0, -1e9]] * 3
    assert widened(torch.tensor([[1, 1, 0]]), 1, 2, causal=True).tolist() == [[1, 1, 1, 1, 0]]


def test_what_takes_no_prompts_says_so() -> None:
    model = tiny_model("clip")
    model.vision_model.encoder = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(NotSupported, match=r"image tower of CLIPModel .* prompts\.image=0"):
        SoftPrompts(model, Prompts())
    with pytest.raises(NotSupported, match="attention mask"):
        widened(torch.ones(2, 2, 2), 1, 1, causal=True)
    with pytest.raises(UsageError, match="at least 0"):
        Prompts(image=-1)
