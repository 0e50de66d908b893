"""How the spatial detail of a token grid changes from one depth to another, by two-dimensional Fourier transform."""

import torch

EPSILON = 1e-6


def low_pass(size: int, variance: float, device: torch.device | None = None) -> torch.Tensor:
    """Gaussian low-pass of a periodic signal of `size` values, as a matrix `[size, size]`, float64.

    What the discrete Fourier transform, a factor exp(-f^2 / variance) for each frequency f, and the transform back make
    of a signal. A Gaussian of two frequencies is the product of two of one, so this is done along either axis.

    >>> (low_pass(3, 2.0).sum(1) - 1).abs().max().item() < 1e-12  # what is constant passes
    True
    """
    place = torch.arange(size, dtype=torch.float64, device=device)
    frequency = place - size // 2
    angle = 2 * torch.pi / size * frequency[:, None] * place
    factor = (-frequency.square() / variance).exp()[:, None] / size
    return angle.cos().T @ (factor * angle.cos()) + angle.sin().T @ (factor * angle.sin())


def spectral_energy(
    features: torch.Tensor, grid: tuple[int, int, int], cutoff_ratio: float, softening: float = 0.0
) -> torch.Tensor:
    """Magnitude of what the high-pass leaves of each token, mean over channels, `[units, visual]`.

    Every frame of the grid and every channel is an image of its own (CLSE, arXiv 2606.24165).

    Args:
        features: `[units, visual, dim]`, any dtype; the filter is in float32 (float64 stays).
        grid: frames, height, width; the tokens lie in raster order.
        cutoff_ratio, softening: of the Gaussian high-pass 1 - exp(-r^2 / (2 b^2 + softening)), r the distance from
            frequency zero, b = min(floor(height / 2), floor(width / 2)) cutoff_ratio. If both are 0, everything passes.
    """
    _, height, width = grid
    passed = features.to(torch.promote_types(features.dtype, torch.float32))
    variance = 2 * (min(height // 2, width // 2) * cutoff_ratio) ** 2 + softening
    if variance > 0:
        down, across = (low_pass(size, variance, features.device).to(passed.dtype) for size in (height, width))
        smooth = down @ passed.reshape(-1, height, width * passed.shape[-1])
        passed = passed - (across @ smooth.reshape(-1, width, passed.shape[-1])).view_as(passed)
    return passed.abs().mean(-1).flatten(1)


def spectral_intensity(
    before: torch.Tensor, now: torch.Tensor, grid: tuple[int, int, int], cutoff_ratio: float, softening: float = 0.0
) -> torch.Tensor:
    """How much each token's spectral energy s changed, `[units, visual]`, in 0..1.

    min(1, |s(now) - s(before)| / (mean s(before) + s(before) + e)), e = 1e-6 (CLSE, equations 11 and 12).

    Args:
        before, now: `[units, visual, dim]`.
    """
    energy = spectral_energy(before, grid, cutoff_ratio, softening)
    change = (spectral_energy(now, grid, cutoff_ratio, softening) - energy).abs()
    return (change / (energy.mean(1, keepdim=True) + energy + EPSILON)).clamp(max=1)


def spectral_evolution(
    before: torch.Tensor,
    now: torch.Tensor,
    grid: tuple[int, int, int],
    cutoff_ratio: float,
    temperature: float,
    softening: float = 0.0,
) -> torch.Tensor:
    """How strongly each token's spectral energy changed, against the other tokens of its unit, in 0..1.

    evolution = sigmoid((g - mean g) / (std g + e) / temperature), g the `spectral_intensity`, e = 1e-6, std the sample
    deviation over all tokens of the unit (CLSE, arXiv 2606.24165). The grid must be at least 2 x 2.

    Args:
        before, now: `[units, visual, dim]`.

    Returns:
        `[units, visual]`.
    """
    change = spectral_intensity(before, now, grid, cutoff_ratio, softening)
    deviation = change.std(1, keepdim=True) + EPSILON
    return ((change - change.mean(1, keepdim=True)) / deviation / temperature).sigmoid()
