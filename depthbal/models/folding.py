"""Convolutions of a bilinearly enlarged map, computed at the map's own resolution."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Form = Literal["plain", "rows", "full"]
"""Whether the map is enlarged before the convolution, in its columns only, or not at all."""

MACS_PER_NUMBER_CPU = 60
MACS_PER_NUMBER = 200
"""How many multiply-adds take as long as moving one number to or from memory, in bfloat16.

Two Zen 5 cores reach 450e9 multiply-adds and 8e9 numbers a second. An H100's data sheet says 295;
large products reach about two thirds of its arithmetic peak.
"""


def interpolation_matrix(
    length: int, enlarged: int, taps: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return (enlarged, length * taps): what every tap at every place takes from each source place.

    Column `s * taps + t` of row `p` holds the weight that bilinear interpolation
    (align_corners=False) from `length` to `enlarged` places gives the source place s at the place
    p + t - taps // 2, and 0 where that lies outside: the zero padding of the convolution.
    """
    places = torch.arange(enlarged, device=device)[:, None]
    places = places + torch.arange(taps, device=device) - taps // 2
    inside = (places >= 0) & (places < enlarged)
    source = ((places.double() + 0.5) * (length / enlarged) - 0.5).clamp(0, length - 1)
    # the hat function around every source place is its interpolation weight
    distance = source[:, None, :] - torch.arange(length, device=device)[None, :, None]
    weights = (1 - distance.abs()).clamp(min=0) * inside[:, None, :]
    return weights.reshape(enlarged, length * taps).to(dtype)


@lru_cache(maxsize=64)
def _kept_matrix(
    length: int, enlarged: int, taps: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # a tensor made in inference mode could not serve a later training step
    with torch.inference_mode(False), torch.no_grad():
        return interpolation_matrix(length, enlarged, taps, dtype, device)


def cheapest_form(
    features: Tensor, weights: Sequence[Tensor], size: tuple[int, int], macs_per_number: int
) -> Form:
    """Return the form of `enlarged_convs` that takes least: multiply-adds and numbers moved.

        cost = multiply-adds + macs_per_number * numbers moved

    Every intermediate result is written once and read once per use, and the one between two
    contractions is also rearranged. The backward pass costs every form about twice its forward
    pass again, so it does not change the order. (Of "full" the columns go first: as channels_last
    tensors lie in memory, that product needs no rearrangement.) Folding wins where there are many
    input channels or the enlargement is strong.
    """
    batch, channels, low_height, low_width = features.shape
    height, width = size
    taps = weights[0].shape[-1]
    outputs = sum(len(weight) for weight in weights)
    uses = 1 + len(weights)  # the enlarged map is written once and read by every branch

    between = batch * outputs * taps * low_height * width
    last = between * height
    packed = 2 * channels * outputs * taps**2  # once, whatever the batch
    plain = taps**2 * channels * outputs * batch * height * width
    plain += macs_per_number * uses * channels * batch * height * width
    rows = taps * channels * between + last
    rows_moved = uses * channels * batch * low_height * width + 4 * between + packed
    rows += macs_per_number * rows_moved
    mixed = taps**2 * outputs * batch * low_height * low_width
    full = channels * mixed + between * taps * low_width + last
    full += macs_per_number * (2 * mixed + 4 * between + packed)
    if plain <= rows and plain <= full:  # no min(): torch.compile has symbols for changing sizes
        return "plain"
    return "rows" if rows <= full else "full"


def enlarged_convs(
    features: Tensor,
    weights: Sequence[Tensor],
    size: tuple[int, int],
    form: Form | None = None,
) -> list[Tensor]:
    """Enlarge a map bilinearly and convolve it with every weight, in the cheapest exact form.

        conv(enlarge(x)) = sum_ij shift_ij(enlarge(w_ij x))

    Enlarging and convolving are linear and act on other axes than the mixing of channels, so the
    taps are applied as 1x1 convolutions to the small map first; then two products with constant
    matrices enlarge, shift and sum the columns and the rows. Autocast is followed: under it the
    products and the result have its type, as a convolution's would.

    Args:
        features: (B, C, h, w).
        weights: of one or more convolutions without bias, (O_k, C, t, t), t odd, padding t // 2.
        size: (H, W).
        form: None for the cheapest on this device.

    Returns:
        (B, O_k, H, W) for every weight, in channels_last layout where folded.
    """
    device = features.device
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    else:
        dtype = features.dtype
    if form is None:
        balance = MACS_PER_NUMBER_CPU if device.type == "cpu" else MACS_PER_NUMBER
        form = cheapest_form(features, weights, size, balance)
    taps = weights[0].shape[-1]
    if form == "plain":
        enlarged = _enlarge(features, size)
        return [F.conv2d(enlarged, weight, padding=taps // 2) for weight in weights]
    low_height, low_width = features.shape[-2:]
    # the compiler fuses the few operations; a tensor kept across graphs it may overwrite
    matrix = interpolation_matrix if torch.compiler.is_compiling() else _kept_matrix
    rows = matrix(low_height, size[0], taps, dtype, device)
    if form == "rows":
        wide = _enlarge(features, (low_height, size[1])).to(dtype)
        return [_contract_rows(_row_taps(wide, weight.to(dtype)), rows) for weight in weights]
    columns = matrix(low_width, size[1], taps, dtype, device)
    features = features.to(dtype)
    return [
        _contract_rows(_contract_columns(_all_taps(features, weight), columns), rows)
        for weight in weights
    ]


def _enlarge(features: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def _row_taps(wide: Tensor, weight: Tensor) -> Tensor:
    """Return (B, h, W, t, O): every row of taps applied to a map that has its full width."""
    outputs, channels, taps, _ = weight.shape
    kernel = weight.permute(2, 0, 1, 3).reshape(taps * outputs, channels, 1, taps)
    mixed = F.conv2d(wide, kernel, padding=(0, taps // 2)).permute(0, 2, 3, 1)
    return mixed.view(*mixed.shape[:3], taps, outputs)


def _all_taps(features: Tensor, weight: Tensor) -> Tensor:
    """Return (B, h, w, tap column, tap row, O): every tap as a 1x1 convolution."""
    outputs, channels, taps, _ = weight.shape
    batch, _, height, width = features.shape
    if batch * height * width < channels:
        # the result is smaller than the weights: rearrange it rather than them
        kernel = weight.to(features.dtype).permute(0, 2, 3, 1).reshape(-1, channels)
        mixed = F.linear(features.permute(0, 2, 3, 1), kernel)
        mixed = mixed.view(batch, height, width, outputs, taps, taps)
        return mixed.permute(0, 1, 2, 5, 4, 3)
    kernel = weight.permute(3, 2, 0, 1)
    kernel = kernel.to(features.dtype, memory_format=torch.contiguous_format)
    kernel = kernel.reshape(-1, channels)
    if features.dtype == torch.float32:
        # twice as fast as a product: oneDNN instead of MKL, TF32 where convolutions may use it
        mixed = F.conv2d(features, kernel[:, :, None, None]).permute(0, 2, 3, 1)
    else:
        mixed = F.linear(features.permute(0, 2, 3, 1), kernel)
    return mixed.view(batch, height, width, taps, taps, outputs)


def _contract_columns(mixed: Tensor, columns: Tensor) -> Tensor:
    """Return (B, h, W, t, O) from (B, h, w, t, t, O) and (W, w t)."""
    batch, height, _, _, taps, outputs = mixed.shape
    summed = columns @ mixed.reshape(batch * height, columns.shape[1], taps * outputs)
    return summed.view(batch, height, len(columns), taps, outputs)


def _contract_rows(mixed: Tensor, rows: Tensor) -> Tensor:
    """Return (B, O, H, W), channels_last, from (B, h, W, t, O) and (H, h t)."""
    batch, _, width, _, outputs = mixed.shape
    mixed = mixed.transpose(2, 3).reshape(batch, rows.shape[1], width * outputs)
    return (rows @ mixed).view(batch, len(rows), width, outputs).permute(0, 3, 1, 2)
