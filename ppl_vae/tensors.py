"""Arrays as tensors of the same numbers: what is missing in them, and what holds no numbers."""

from __future__ import annotations

__all__ = ["as_tensor", "check_dtype"]

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What to do with arrays of other kinds, by NumPy's letter for them.
_INSTEAD = {
    "c": "pass real and imaginary parts, or moduli and angles, as features of their own",
    "U": "turn it into numbers, or pass a DataFrame, whose columns of text become levels",
    "M": "pass a DataFrame, whose dates become days, or numbers",
    "V": "pass its fields as features, such as pandas.DataFrame(x)",
    "O": "turn it into numbers, with NaN for what is missing",
}
_INSTEAD |= {"S": _INSTEAD["U"], "T": _INSTEAD["U"], "m": _INSTEAD["M"]}


def as_tensor(array: Any, name: str = "x") -> Tensor:
    """An array as a tensor of the same numbers, which shares its memory where torch can.

    A masked cell of a NumPy masked array is missing, so NaN. Objects that are all numbers become
    numbers.

    Raises
    ------
    TypeError
        If it is sparse, or another kind of tensor without entries side by side in memory.
    ValueError
        If it holds complex numbers, text, dates or other objects, or bytes some of which are
        masked, as intensities cannot be missing.

    Examples
    --------
    >>> as_tensor(np.ma.masked_equal([[1.5, -999.0]], -999.0)).tolist()
    [[1.5, nan]]
    """
    if isinstance(array, Tensor):
        return _plain(array, name)
    if hasattr(array, "toarray") or hasattr(array, "todense"):
        dense = "toarray" if hasattr(array, "toarray") else "todense"
        raise TypeError(
            f"{name} is sparse, a {type(array).__name__}, and only dense rows are read; pass "
            f"{name}.{dense}(), or, of more columns than memory holds, those that vary most"
        )
    array = _unmasked(array, name) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
    if array.dtype.kind == "O":
        array = _numbers(array, name)
    check_dtype(array.dtype, name)
    if array.dtype.itemsize > 8:  # long doubles, which torch has not
        array = array.astype(np.float64)
    # torch knows neither other byte orders, nor steps backwards, nor memory that must not change.
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def check_dtype(dtype: Any, name: str = "x") -> None:
    """Refuse an array that holds no real numbers, by its dtype of NumPy.

    Raises
    ------
    ValueError
        With what to do instead.
    """
    kind = getattr(dtype, "kind", "f")
    if kind not in "biuf":
        raise ValueError(
            f"{name} has dtype {dtype}; accepted are real numbers and bool: "
            f"{_INSTEAD.get(kind, _INSTEAD['O'])}"
        )


def _plain(tensor: Tensor, name: str) -> Tensor:
    """A tensor itself, unless it is complex, sparse, quantized, nested or masked."""
    if tensor.is_complex():
        raise ValueError(
            f"{name} has dtype {tensor.dtype}; accepted are real numbers: {_INSTEAD['c']}, as "
            f"torch.view_as_real({name}) does"
        )
    if tensor.layout != torch.strided and not tensor.is_nested:
        kind, dense = f"sparse ({tensor.layout})", f"{name}.to_dense()"
    elif tensor.is_quantized:
        kind, dense = "quantized", f"{name}.dequantize()"
    elif tensor.is_nested:
        kind, dense = "nested", f"{name}.to_padded_tensor(float('nan'))"
    elif type(tensor).__name__ == "MaskedTensor":
        kind, dense = "a MaskedTensor", f"{name}.to_tensor(float('nan'))"
    else:
        return tensor
    raise TypeError(f"{name} is {kind}, and only dense rows are read; pass {dense}")


def _unmasked(array: np.ma.MaskedArray[Any, Any], name: str) -> np.ndarray:
    """A masked array with NaN where it is masked."""
    if not np.ma.getmaskarray(array).any():
        return np.asarray(array.data)
    if array.dtype == np.uint8:
        raise ValueError(
            f"{name} is a masked array of bytes, which mean intensities from 0 to 255, of which "
            f"none can be missing; pass numbers in [0, 1], {name} / 255"
        )
    check_dtype(array.dtype, name)
    if array.dtype.kind != "f":
        # Whole numbers up to 2**24 are exact in single precision.
        exact = array.dtype.itemsize <= 2 or np.ma.max(np.ma.abs(array)) <= 2**24
        return np.ma.filled(array.astype(np.float32 if exact else np.float64), np.nan)
    return np.ma.filled(array, np.nan)


def _numbers(array: np.ndarray, name: str) -> np.ndarray:
    """Objects as numbers, None as NaN.

    Raises
    ------
    ValueError
        If one is no number; texts are none, whatever they look like.
    """
    texts = any(isinstance(entry, str | bytes) for entry in array.flat)
    try:
        if not texts:
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    odd = next(e for e in array.flat if not (e is None or isinstance(e, Real | Decimal)))
    raise ValueError(
        f"{name} has dtype object and holds {odd!r:.60}, which is no number; {_INSTEAD['O']}, or "
        "pass a DataFrame, whose columns of text become levels"
    )
