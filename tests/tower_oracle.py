"""What merging inside a vision tower must come to, in an untouched tower that keeps every patch.

No sequence gets shorter: every patch of a group carries the group's value, keys of all but one patch place per group
are forbidden, and after each layer that place's output is copied to the others. Groups are lists, cosines are float64,
attention is written out. Nothing of the library is used.
"""

import math

import torch

MERGED = (
    *("internvl", "smolvlm", "idefics3", "gemma3", "mistral3", "lighton_ocr", "paddleocr_vl", "ovis2"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"),
    *(
        "qwen3_5",
        "qwen3_5_moe",
        "cosmos3_omni",
        "cosmos3_edge",
        "kimi_k25",
        "exaone4_5",
        "aya_vision",
        "cohere2_vision",
    ),
    *("glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr", "ernie4_5_vl_moe"),
)
# Beginnings of types whose tower has the patches of a token one behind the other.
CONSECUTIVE = ("qwen", "glm", "cosmos3", "exaone4_5", "ernie4_5_vl")
POOLED_VIDEOS = ("llava_onevision", "llava_next_video")


def first_of(module, *names):
    return next(getattr(module, name) for name in names if getattr(module, name, None) is not None)


def layers_of(tower):
    if (own := getattr(tower, "blocks", getattr(tower, "layers", None))) is not None:
        return own
    inner = first_of(tower, "encoder", "transformer", "vision_model")
    return first_of(inner.encoder if hasattr(inner, "encoder") else inner, "layers", "layer")


def turned(x, rotary):
    """`x` `[patches, heads, dim]`, rotated."""
    if rotary is None:
        return x
    cos, sin = (angle.reshape(-1, 1, angle.shape[-1]) for angle in rotary)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class TowerOracle:
    """Hooks on the towers of an untouched eager model, while `with` lasts.

    `groups`: after a run, per kind and picture, lists of the tokens (in the tower's order) that became one, the first
    of each list being the token that received.
    """

    def __init__(self, model, strategy):
        self.model, self.strategy, self.base = model, strategy, model.model
        self.config = model.config
        self.lead = int(self.config.vision_config.model_type in ("clip_vision_model", "internvl_vision"))
        self.kind, self.groups = "image", {}

    def __enter__(self):
        self.undo = []
        names = ("vision_tower", "visual", "vision_model", "vision_encoder", "image_tower", "video_tower")
        towers = {id(t): t for name in names if (t := getattr(self.base, name, None)) is not None}
        for tower in towers.values():
            self._hook(tower.register_forward_pre_hook(self._begin, with_kwargs=True))
            self._hook_layers(tower)
        if hasattr(self.base, "get_video_features"):
            encode = self.base.get_video_features

            def videos(*args, **kwargs):
                self.kind = "video"
                try:
                    return encode(*args, **kwargs)
                finally:
                    self.kind = "image"

            self.base.get_video_features = videos
            self.undo.append(lambda: vars(self.base).pop("get_video_features"))
        return self

    def _hook_layers(self, tower):
        layers = layers_of(tower)
        choice = getattr(self.config, "vision_feature_layer", -1)
        last = (choice if choice >= 0 else len(layers) + 1 + choice) - 1
        self.steps = last - self.strategy.first
        for index in range(self.strategy.first, last):
            layer = layers[index]
            self._hook(layer.register_forward_pre_hook(self._merge(index - self.strategy.first), with_kwargs=True))
            attention = first_of(layer, "self_attn", "attention", "attn")
            self._hook(attention.register_forward_hook(self._attend, with_kwargs=True))
            self._hook(layer.register_forward_hook(lambda module, args, output: self._spread(output)))

    def _hook(self, handle):
        self.undo.append(handle.remove)

    def __exit__(self, *error):
        while self.undo:
            self.undo.pop()()

    def _begin(self, tower, args, kwargs):
        self.grids, self.tokens = None, None
        if (grid := kwargs.get("grid_thw", args[1] if len(args) > 1 and args[1].ndim == 2 else None)) is not None:
            self.grids = [(h, w) for t, h, w in grid.tolist() for _ in range(t)]
        elif kwargs.get("image_sizes") is not None and self.config.vision_config.model_type == "pixtral":
            patch = self.config.vision_config.patch_size
            self.grids = [(int(h) // patch, int(w) // patch) for h, w in kwargs["image_sizes"]]

    def _start(self, hidden):
        """`tokens[t]`: places of a token's patches in the flattened sequence; `pictures`: lists of groups of tokens."""
        rows, length = (1, len(hidden)) if hidden.ndim == 2 else hidden.shape[:2]
        side = math.isqrt(length - self.lead)
        grids = self.grids or [(side, side)] * rows
        model_type = self.config.model_type
        block = 2 if model_type in MERGED or (self.kind == "video" and model_type in POOLED_VIDEOS) else 1
        self.tokens, self.pictures, place = [], [], 0
        for number, (height, width) in enumerate(grids):
            if not self.grids:
                place = number * length + self.lead
            first = len(self.tokens)
            if self.config.model_type.startswith(CONSECUTIVE):
                self.tokens += [range(place + 4 * i, place + 4 * i + 4) for i in range(height * width // 4)]
            else:
                for i in range(0, height, block):
                    for j in range(0, width, block):
                        own = [place + (i + y) * width + j + x for y in range(block) for x in range(block)]
                        self.tokens.append(own)
            place += height * width
            self.pictures.append([[token] for token in range(first, len(self.tokens))])
        self.receives = list(range(len(self.tokens)))

    def _plan(self):
        self.groups[self.kind] = self.pictures
        self.plans = []
        for groups in self.pictures:
            total = len(groups)
            kept = self.strategy.keep if isinstance(self.strategy.keep, int) else round(total * self.strategy.keep)
            kept = max(1, min(kept, total))
            plan = [total - (i + 1) * (total - kept) // self.steps for i in range(self.steps)]
            self.plans.append([min(n, kept * 2 ** (self.steps - i - 1)) for i, n in enumerate(plan)])

    def _merge(self, step):
        def hook(layer, args, kwargs):
            hidden = args[0]
            if step == 0:
                self._start(hidden)
                self._plan()
            flat = hidden.flatten(0, -2)
            attention = first_of(layer, "self_attn", "attention", "attn")
            normed = first_of(layer, "layer_norm1", "layernorm_before", "attention_norm", "norm1", "rms_norm1")(flat)
            keys = self._parts(attention, normed, kwargs.get("position_embeddings"))[1].detach().mean(1).tolist()
            for number, groups in enumerate(self.pictures):
                drop = len(groups) - self.plans[number][step]
                means = []
                for group in groups:
                    rows = [keys[place] for place in self.tokens[group[0]]]
                    means.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
                best = []
                for a in range(0, len(groups), 2):
                    near = max(range(1, len(groups), 2), key=lambda b: (cosine(means[a], means[b]), -b), default=None)
                    if near is not None:
                        best.append((-cosine(means[a], means[near]), a, near))
                taken = sorted(best)[:drop]
                joined = {}
                for _, a, b in taken:
                    joined.setdefault(b, []).append(a)
                for b, givers in joined.items():
                    together = [groups[b], *(groups[a] for a in givers)]
                    total = sum(map(len, together))
                    receiver = self.tokens[groups[b][0]]
                    value = sum(flat[list(self.tokens[g[0]])] * (len(g) / total) for g in together)
                    flat = flat.index_put((torch.tensor(list(receiver)),), value)
                    for a in givers:
                        groups[b] += groups[a]
                self.pictures[number][:] = [g for i, g in enumerate(groups) if i not in {a for _, a, _ in taken}]
            self._note(len(flat))
            return (self._spread(flat.view(hidden.shape)), *args[1:]), kwargs

        return hook

    def _note(self, length):
        """`stands[p]`: the patch place whose value place p has; `weight[p]`: its group's size, 0 if it is no key."""
        self.stands, self.weight = list(range(length)), [1.0] * length
        for groups in self.pictures:
            for group in groups:
                for token in group:
                    for place, receiver in zip(self.tokens[token], self.tokens[group[0]], strict=True):
                        self.stands[place] = receiver
                        self.weight[place] = float(len(group)) if place == receiver else 0.0

    def _spread(self, hidden):
        return hidden.flatten(0, -2)[torch.tensor(self.stands)].view(hidden.shape)

    def _parts(self, attention, flat, rotary):
        """Queries, keys, values `[patches, heads, dim]`."""
        vision = self.config.vision_config
        heads = getattr(vision, "num_attention_heads", None) or vision.num_heads
        if hasattr(attention, "qkv"):
            own = getattr(vision, "num_key_value_heads", heads)
            size = attention.qkv.out_features // (heads + 2 * own)
            q, k, v = attention.qkv(flat).split([heads * size, own * size, own * size], -1)
        elif hasattr(attention, "q"):
            q, k, v = attention.q(flat), attention.k(flat), attention.v(flat)
        else:
            q, k, v = attention.q_proj(flat), attention.k_proj(flat), attention.v_proj(flat)
            if hasattr(attention, "q_norm"):
                q, k = attention.q_norm(q), attention.k_norm(k)
        size = q.shape[-1] // heads
        q, k, v = (x.view(len(flat), -1, size) for x in (q, k, v))
        if hasattr(attention, "qkv") and hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
        return turned(q, rotary), turned(k, rotary), v

    def _attend(self, attention, args, kwargs, output):
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        flat = x.flatten(0, -2)
        q, k, v = self.parts = self._parts(attention, flat, kwargs.get("position_embeddings"))
        piece = torch.zeros(len(flat), dtype=torch.long)
        if (ends := kwargs.get("cu_seqlens")) is not None:
            piece = torch.searchsorted(ends.long(), torch.arange(len(flat)), right=True)
        elif self.grids:
            piece = torch.tensor([i for i, (h, w) in enumerate(self.grids) for _ in range(h * w)])
        elif x.ndim == 3:
            piece = torch.arange(len(flat)) // x.shape[1]
        weight = torch.tensor(self.weight, dtype=x.dtype)
        if not getattr(self.strategy, "proportional", False):
            weight = (weight > 0).to(x.dtype)
        score = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5 + weight.log()
        score = score.masked_fill(piece[:, None] != piece, -torch.inf)
        alone = (score == -torch.inf).all(-1, keepdim=True)  # all of its window went elsewhere, and nobody reads it
        score = score.masked_fill(alone, 0)
        mixed = torch.einsum("hqk,khd->qhd", score.softmax(-1), v).flatten(1)
        result = first_of(attention, "out_proj", "proj", "o_proj", "projection_layer")(mixed).view(x.shape)
        return (result, None) if isinstance(output, tuple) else result


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))
