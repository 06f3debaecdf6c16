"""Convolutions of learned codecs in numpy, so that a device or an edge without torch can run them.

Encoding may use the fastest matrix product there is. Decoding may not: a product adds in an order of its own on every
machine, and equal payloads must give equal tensors everywhere. There, one share after the other is added to the whole
map, in a fixed order.
"""

from __future__ import annotations

import numpy as np

from splitexit.codecs import Array

BLOCK_VALUES = 2048
"""That decoding adds up at once: few enough for the nearest cache, and numpy takes buffers of as many, three times."""


def convolve(features: Array, weight: Array, bias: Array, stride: int = 1) -> Array:
    """What torch's conv2d computes, for encoding: C×H×W -> (filters, H / stride, W / stride), rounded up.

    Args:
        weight: (filters, C, k, k). Zeros stand around the map so that the size stays where k is odd; where k is the
            stride, they fill up the last row and column.
        bias: (filters,).
    """
    kernel = weight.shape[-1]
    before = (kernel - 1) // 2 if kernel % 2 else 0
    after = [before if kernel % 2 else -side % stride for side in features.shape[1:]]
    padded = np.pad(features, ((0, 0), *((before, end) for end in after)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    _, height, width = windows.shape[:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)
    mixed: Array = weight.reshape(len(weight), -1) @ columns
    return (mixed + bias.reshape(-1, 1)).reshape(-1, height, width)


def add_up(latent: Array, weight: Array, bias: Array) -> Array:
    """A convolution with an odd kernel and zeros around the map, in a fixed order: c×H×W -> (filters, H, W).

    Args:
        weight: (filters, c, k, k).
        bias: (filters,).
    """
    filters, channels, kernel, _ = weight.shape
    height, width = latent.shape[1:]
    pad = kernel // 2
    # One channel with its zeros, flat: from wherever a kernel's weight reads, what it reads is then one run of values.
    wide = width + 2 * pad
    flat = np.zeros((height + 2 * pad) * wide, np.float32)
    inside = flat.reshape(-1, wide)[pad : pad + height, pad : pad + width]
    run = (height - 1) * wide + width
    some = max(1, BLOCK_VALUES // (height * wide))
    features = np.empty((filters, height, width), np.float32)
    for start in range(0, filters, some):
        factors = weight[start : start + some, ..., None]
        sums = np.empty((len(factors), height * wide), np.float32)
        sums[:] = bias[start : start + some, None]
        for channel in range(channels):
            inside[:] = latent[channel]
            for row, column in np.ndindex(kernel, kernel):
                first = row * wide + column
                sums[:, :run] += factors[:, channel, row, column] * flat[first : first + run]
        features[start : start + some] = sums.reshape(-1, height, wide)[:, :, :width]
    return features


def spread(latent: Array, weight: Array, bias: Array, size: tuple[int, int]) -> Array:
    """A transposed convolution whose kernel is its stride, in a fixed order: c×h×w -> (filters, *size).

    Every position becomes a block of k×k; what reaches beyond `size`, height and width, is cut off.

    Args:
        weight: (c, filters, k, k), as torch has it.
        bias: (filters,).
    """
    channels, filters, kernel, _ = weight.shape
    height, width = latent.shape[1:]
    features = np.empty((filters, kernel * height, kernel * width), np.float32)
    features[:] = bias.reshape(-1, 1, 1)
    some = max(1, BLOCK_VALUES // (height * width))
    for start in range(0, filters, some):
        block, factors = features[start : start + some], weight[:, start : start + some, ..., None, None]
        for channel, row, column in np.ndindex(channels, kernel, kernel):
            block[:, row::kernel, column::kernel] += factors[channel, :, row, column] * latent[channel]
    return np.ascontiguousarray(features[:, : size[0], : size[1]])
