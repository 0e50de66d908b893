"""`rotate` and `attention_rows` against the full attention map, head by head, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeless.ops.attention import attention_rows, rotate


def angles(seq, rotary_dim, base=10000.0):
    """cos and sin `[1, seq, rotary_dim]` in the half-split layout, and the angles `[seq, rotary_dim / 2]`."""
    frequency = base ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)
    angle = torch.arange(seq, dtype=torch.float64)[:, None] * frequency
    both = torch.cat([angle, angle], 1)[None]
    return both.cos(), both.sin(), angle


def rotate_as_complex(x, angle):
    """Dimensions i and i + half are one complex number, turned by the angle of frequency i."""
    half = angle.shape[1]
    numbers = torch.complex(x[..., :half], x[..., half : 2 * half]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([numbers.real, numbers.imag, x[..., 2 * half :]], -1)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.integers(0, 99)
)
def test_rotate_turns_complex_numbers(batch, heads, seq, half, rest, seed):
    x = torch.randn(
        batch, heads, seq, 2 * half + rest, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    cos, sin, angle = angles(seq, 2 * half)
    assert torch.allclose(rotate(x, cos, sin), rotate_as_complex(x, angle), atol=1e-12)
    assert torch.equal(rotate(x, cos, sin)[..., 2 * half :], x[..., 2 * half :])


def full_map(query, keys, scaling, valid):
    """`[heads, seq, seq]` of one row: softmax over causal, unpadded keys; every entry worked out on its own."""
    heads, seq, _ = query.shape
    group = heads // len(keys)
    whole = torch.zeros(heads, seq, seq, dtype=torch.float64)
    for head in range(heads):
        for i in range(seq):
            seen = [j for j in range(i + 1) if valid[j]]
            powers = [math.exp(float(query[head, i] @ keys[head // group, j]) * scaling) for j in seen]
            for j, power in zip(seen, powers, strict=True):
                whole[head, i, j] = power / sum(powers)
    return whole


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (4, 1)]),
    st.integers(2, 9),
    st.booleans(),
    st.integers(0, 999),
    st.data(),
)
def test_rows_of_the_full_causal_map(batch, heads, seq, left_padded, seed, data):
    heads, kv_heads = heads
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, seq, 6, generator=generator, dtype=torch.float64)
    keys = torch.randn(batch, kv_heads, seq, 6, generator=generator, dtype=torch.float64)
    cos, sin, angle = angles(seq, 4)
    valid = torch.ones(batch, seq, dtype=torch.bool)
    gaps = [data.draw(st.integers(0, seq - 2)) if left_padded else 0 for _ in range(batch)]
    for row, gap in enumerate(gaps):
        valid[row, :gap] = False
    real = range(max(gaps), seq)  # rows that are padding mean nothing
    asked = torch.tensor(data.draw(st.lists(st.sampled_from(real), min_size=1, max_size=4)))
    columns = torch.tensor([data.draw(st.lists(st.sampled_from(real), min_size=2, max_size=2)) for _ in range(batch)])

    visible = (torch.arange(seq) <= asked[:, None]) & valid[:, None]
    got = attention_rows(
        rotate(query, cos, sin)[:, :, asked], rotate(keys, cos, sin), 6**-0.5, visible, columns
    ).double()

    assert got.shape == (batch, heads, len(asked), 2)
    for row in range(batch):
        whole = full_map(rotate_as_complex(query[row], angle), rotate_as_complex(keys[row], angle), 6**-0.5, valid[row])
        assert torch.allclose(got[row], whole[:, asked][:, :, columns[row]], atol=1e-6)


def test_without_a_mask_every_key_is_seen():
    generator = torch.Generator().manual_seed(0)
    query, keys = (torch.randn(2, 4, 5, 8, generator=generator) for _ in range(2))
    columns = torch.arange(5).expand(2, -1)
    got = attention_rows(query, keys, 8**-0.5, None, columns)
    assert torch.allclose(got.sum(-1), torch.ones(2, 4, 5), atol=1e-6)
    want = (query.double() @ keys.double().transpose(-1, -2) * 8**-0.5).softmax(-1)
    assert torch.allclose(got.double(), want, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_takes_one_round_trip_through_the_models_dtype(dtype):
    generator = torch.Generator().manual_seed(0)
    query, keys = (torch.randn(1, 2, 3, 8, generator=generator).to(dtype) for _ in range(2))
    got = attention_rows(query, keys, 8**-0.5, None, torch.arange(3)[None])
    assert got.dtype is torch.float32
    eager = ((query @ keys.transpose(-1, -2)) * 8**-0.5).softmax(-1, dtype=torch.float32).to(dtype)
    assert torch.equal(got, eager.float())
