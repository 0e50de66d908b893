"""How the spatial detail of a token grid changes from one depth to another, by two-dimensional Fourier transform."""

import torch

EPSILON = 1e-6


def high_pass(
    height: int, width: int, cutoff_ratio: float, device: torch.device | None = None, softening: float = 0.0
) -> torch.Tensor:
    """Gaussian high-pass mask `[height, width]`, zero frequency in the centre, float32.

    1 - exp(-r^2 / (2 b^2 + softening)), r the distance from (floor(height / 2), floor(width / 2)), b = min of the two
    times `cutoff_ratio`. Without softening, b = 0 lets everything pass.

    >>> high_pass(3, 3, 1.0)[1].tolist() == [1 - 0.6065306663513184, 0.0, 1 - 0.6065306663513184]
    True
    """
    bandwidth = min(height // 2, width // 2) * cutoff_ratio
    y = torch.arange(height, device=device) - height // 2
    x = torch.arange(width, device=device) - width // 2
    squared = (y[:, None] ** 2 + x**2).float()
    width_squared = 2 * bandwidth**2 + softening
    return 1 - (-squared / width_squared).exp() if width_squared > 0 else torch.ones_like(squared)


def spectral_energy(
    features: torch.Tensor, grid: tuple[int, int, int], cutoff_ratio: float, softening: float = 0.0
) -> torch.Tensor:
    """Magnitude of what the high-pass leaves of each token, mean over channels, `[units, visual]`.

    Every frame of the grid and every channel is an image of its own (CLSE, arXiv 2606.24165).

    Args:
        features: `[units, visual, dim]`, any dtype; the transform is in float32 (float64 stays).
        grid: frames, height, width; the tokens lie in raster order.
        cutoff_ratio, softening: of `high_pass`.
    """
    frames, height, width = grid
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    images = wide.reshape(len(features), frames, height, width, -1)
    mask = torch.fft.ifftshift(high_pass(height, width, cutoff_ratio, features.device, softening))
    passed = torch.fft.ifft2(torch.fft.fft2(images, dim=(2, 3)) * mask[..., None], dim=(2, 3))
    return passed.abs().mean(-1).flatten(1)


def spectral_evolution(
    before: torch.Tensor,
    now: torch.Tensor,
    grid: tuple[int, int, int],
    cutoff_ratio: float,
    temperature: float,
    softening: float = 0.0,
) -> torch.Tensor:
    """How strongly each token's spectral energy changed, against the other tokens of its unit, in 0..1.

    g = min(1, |s(now) - s(before)| / (mean s(before) + s(before) + e)), evolution = sigmoid((g - mean g) / (std g + e)
    / temperature), e = 1e-6, std the sample deviation over all tokens of the unit (CLSE, arXiv 2606.24165). The grid
    must be at least 2 x 2.

    Args:
        before, now: `[units, visual, dim]`.

    Returns:
        `[units, visual]`.
    """
    energy = spectral_energy(before, grid, cutoff_ratio, softening)
    change = (spectral_energy(now, grid, cutoff_ratio, softening) - energy).abs()
    change = (change / (energy.mean(1, keepdim=True) + energy + EPSILON)).clamp(max=1)
    deviation = change.std(1, keepdim=True) + EPSILON
    return ((change - change.mean(1, keepdim=True)) / deviation / temperature).sigmoid()
