"""The tensors of a learned codec, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from splitexit.codecs import Array, Tensors
from splitexit.errors import ArtifactError


def take(
    codec_id: str, tensors: Tensors, key: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32
) -> Array:
    """The tensor of this name, contiguous and of this type; trailing axes of length one (a convolution's) may differ.

    Raises:
        ArtifactError: it is missing, not finite, of another shape, or holds numbers that the type cannot.
    """
    if key not in tensors:
        raise ArtifactError(f"codec {codec_id}: tensor {key!r} is missing; it has {sorted(tensors)}")
    values: np.ndarray[Any, Any] = np.asarray(tensors[key])
    core, expected = _core(values.shape), _core(shape)
    if core != expected or not np.isfinite(values).all():
        raise ArtifactError(f"codec {codec_id}: tensor {key!r} is {values.shape}, expected finite values of {expected}")
    with np.errstate(all="ignore"):
        cast = np.ascontiguousarray(values, dtype=dtype)
    if not np.isfinite(cast).all() or (np.issubdtype(dtype, np.integer) and (cast != values).any()):
        raise ArtifactError(f"codec {codec_id}: tensor {key!r} holds numbers that are no {np.dtype(dtype)}")
    return cast.reshape(shape)


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
