"""Methods of three stages on `reader`, all the way from its weights, against a decoder and methods written as loops.

The decoder is a Llama for one sequence, from the tensors of the checkpoint; the methods are those of methods.md,
sections 3 and 7: what they keep at every stage, their scores, where merged tokens stand, and what the model says.
"""

import math

import pytest
import torch

import seeless as sl
from oracle import by_plain_recycling
from seeless.core.host import CACHE
from seeless.reader import draw_drawing, load_reader

DRAWING = draw_drawing(seed=3)
LAYERS, HEADS, WIDTH = 8, 6, 32
VISUAL = 576


@pytest.fixture(scope="module")
def asked():
    model, processor = load_reader()
    content = [{"type": "image"}, {"type": "text", "text": DRAWING.questions[0].text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[DRAWING.image], text=[prompt], return_tensors="pt")
    ids = inputs["input_ids"][0]
    with torch.no_grad():
        states = model.get_input_embeddings()(ids)
        pooled = model.model.get_image_features(inputs["pixel_values"]).pooler_output
        states[ids == model.config.image_token_index] = pooled[0]
    return model, inputs, states, int((ids == model.config.image_token_index).int().argmax())


class Decoder:
    """A Llama for one sequence; `reduce` is called after every layer with the states, positions and attention."""

    def __init__(self, model):
        config = model.config.text_config
        assert (config.num_hidden_layers, config.num_attention_heads, config.head_dim) == (LAYERS, HEADS, WIDTH)
        self.tensors = {name.split("language_model.")[-1]: tensor for name, tensor in model.state_dict().items()}
        self.angles = config.rope_parameters["rope_theta"] ** (-torch.arange(0, WIDTH, 2) / WIDTH)

    def times(self, states, name):
        return states @ self.tensors[f"{name}.weight"].T

    def norm(self, states, name):
        return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6) * self.tensors[f"{name}.weight"]

    def turned(self, states, positions):
        angle = positions[:, None] * self.angles
        first, second = states[..., : WIDTH // 2], states[..., WIDTH // 2 :]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def layer(self, number, states, positions):
        name, tokens = f"layers.{number}", len(states)
        normed = self.norm(states, f"{name}.input_layernorm")
        q, k, v = (
            self.times(normed, f"{name}.self_attn.{own}_proj").view(tokens, HEADS, WIDTH).transpose(0, 1)
            for own in "qkv"
        )
        logits = self.turned(q, positions) @ self.turned(k, positions).transpose(1, 2) / math.sqrt(WIDTH)
        future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        attention = logits.masked_fill(future, -math.inf).softmax(-1)
        seen = (attention @ v).transpose(0, 1).reshape(tokens, -1)
        states = states + self.times(seen, f"{name}.self_attn.o_proj")
        normed = self.norm(states, f"{name}.post_attention_layernorm")
        gate = self.times(normed, f"{name}.mlp.gate_proj")
        new = gate * gate.sigmoid() * self.times(normed, f"{name}.mlp.up_proj")
        return states + self.times(new, f"{name}.mlp.down_proj"), attention

    def run(self, states, start, reduce):
        """Logits of the last token, and what was kept and scored at every stage."""
        positions, index, stages = torch.arange(len(states)), torch.arange(VISUAL), []
        embeds = states
        for number in range(LAYERS):
            states, attention = self.layer(number, states, positions)
            end = start + len(index)
            decided = reduce(number, embeds, states[start:end], positions, attention, start)
            if decided is not None:
                scores, kept, values, renumber = decided
                index = index[kept]
                stages.append((index, scores))
                states = torch.cat([states[:start], values[kept], states[end:]])
                stay = torch.cat([positions[:start], positions[start:end][kept], positions[end:]])
                positions = torch.arange(len(states)) if renumber else stay
        return self.times(self.norm(states[-1], "norm"), "lm_head"), stages


def raters_of(embeds, start):
    visual, text = embeds[start : start + VISUAL], embeds[start + VISUAL :]
    mean = (visual @ text.T).softmax(-1).mean(0)
    return (mean > mean.mean()).nonzero()[:, 0] - len(text)  # from the end, where the text stays


def sparsevlm(budgets):
    def reduce(number, embeds, visual, positions, attention, start):
        if number not in budgets:
            return None
        raters, end = raters_of(embeds, start) + len(positions), start + len(visual)
        scores = attention[:, raters, start:end].mean((0, 1))
        stay, clusters = by_plain_recycling(scores.tolist(), visual.tolist(), budgets[number])
        values = visual.clone()
        for centre, members in clusters.items():
            values[centre] = visual[members].mean(0)
        return scores, torch.tensor(sorted([*stay, *clusters])), values, True

    return reduce


def sparsevlm_plus(budgets, decoder):
    def reduce(number, embeds, visual, positions, attention, start):
        if number not in budgets:
            return None
        raters, end = raters_of(embeds, start) + len(positions), start + len(visual)
        apart = positions[raters][:, None, None] - positions[start:end][:, None]
        bias = 2 * (apart * decoder.angles).cos().sum(-1) / math.sqrt(WIDTH)
        scores = (attention[:, raters, start:end] / bias).mean((0, 1))  # fewer heads than it listens to
        return scores, scores.topk(budgets[number]).indices.sort().values, visual, False

    return reduce


def detail(states):
    """What a Gaussian high-pass leaves of every token on the grid, mean over channels."""
    grid = torch.fft.fftshift(torch.fft.fft2(states.double().T.reshape(-1, 24, 24)), dim=(1, 2))
    apart = torch.arange(24) - 12
    passed = 1 - (-(apart[:, None].square() + apart.square()) / (2 * 1.2**2)).exp()
    return torch.fft.ifft2(torch.fft.ifftshift(grid * passed, dim=(1, 2))).abs().mean(0).flatten()


def clse(budgets):
    def reduce(number, embeds, visual, positions, attention, start):
        if number not in budgets:
            return None
        scores = attention[:, -1, start : start + len(visual)].mean(0).double()
        if len(visual) == VISUAL:
            before, now = detail(embeds[start : start + VISUAL]), detail(visual)
            change = ((now - before).abs() / (before.mean() + before + 1e-6)).clamp(max=1)
            scores = ((change - change.mean()) / (change.std() + 1e-6) / 0.1).sigmoid() * scores
        return scores, scores.topk(budgets[number]).indices.sort().values, visual, False

    return reduce


CASES = {
    "sparsevlm": (sl.SparseVLM(64), {0: 66, 1: 30, 3: 17}),
    "sparsevlm plus": (sl.SparseVLM(64, version="2.0"), {0: 66, 1: 34, 3: 20}),
    "clse": (sl.CLSE(64, past="keep"), {0: 110, 2: 70, 4: 20}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_kept_scored_and_said(asked, name):
    model, inputs, embeds, start = asked
    decoder, (strategy, budgets) = Decoder(model), CASES[name]
    reduce = {"sparsevlm": sparsevlm, "clse": clse}.get(name, lambda own: sparsevlm_plus(own, decoder))(budgets)
    logits, stages = decoder.run(embeds, start, reduce)
    with sl.apply(model, strategy) as run:
        out = model(**inputs)
    assert len(run.report.stages) == len(stages) == 3
    for found, (kept, scores) in zip(run.report.stages, stages, strict=True):
        assert found.kept[0].tolist() == kept.tolist()
        assert (found.scores[0] - scores).abs().max() < 1e-4 * scores.abs().max()
    assert (out.logits[0, -1] - logits).abs().max() < 1e-4
    text = len(embeds) - VISUAL
    seen = [VISUAL, *(budgets[max(own for own in budgets if own < layer)] for layer in range(1, LAYERS))]
    assert [layer.keys.shape[2] - text for layer in out[CACHE].layers] == seen
