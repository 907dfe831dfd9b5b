"""Keys and values between a model's tensors and the arrays of a file.

fp32 is exact for a float32 model, bf16 for a bfloat16 one. int8 halves bf16: keys have channels that are large
for every token, so they share a scale for each channel; values do not, so theirs is one for each token (KIVI,
Liu et al. 2024, section 3). A scale of 0 stands for nothing but zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from memos.memory.activation.segment import Array, Kind, KvShape
from memos.models.hf.model import Past

_INT8_MAX = 127.0


def encode(past: Past, kind: Kind) -> dict[str, Array]:
    """The arrays of a segment of this kind."""
    with torch.inference_mode():
        if kind == "int8":
            k, k_scale = _quantised(past.keys, across=2)
            v, v_scale = _quantised(past.values, across=3)
            return {"k": k, "v": v, "k_scale": k_scale, "v_scale": v_scale}
        return {"k": _stored(past.keys, kind), "v": _stored(past.values, kind)}


def decode(tensors: Mapping[str, Array], kind: Kind, *, dtype: Any, device: Any) -> Past:
    """The model's tensors again. They share no memory with the arrays where anything was converted."""
    with torch.inference_mode():
        keys, values = (_loaded(tensors, name, kind, device) for name in ("k", "v"))
        return Past(keys.to(dtype), values.to(dtype))


class Assembly:
    """The tensors of a prefix, made once and filled from its parts in order: what a part's file holds is
    converted on its way in, and copied nowhere else. For one thread."""

    def __init__(self, shape: KvShape, tokens: int, *, dtype: Any, device: Any) -> None:
        rows = (shape.layers, shape.heads, tokens)
        with torch.inference_mode():
            self._keys = torch.empty(*rows, shape.key_dim, dtype=dtype, device=device)
            self._values = torch.empty(*rows, shape.value_dim, dtype=dtype, device=device)
        self._device = device
        self.filled = 0  # tokens

    def take(self, past: Past) -> None:
        """What is at hand already comes next."""
        self._put(past.keys, past.values)

    def fill(self, tensors: Mapping[str, Array], kind: Kind) -> None:
        """A segment's arrays come next. They are not needed afterwards."""
        with torch.inference_mode():
            keys, values = (_loaded(tensors, name, kind, self._device) for name in ("k", "v"))
            self._put(keys, values)

    def past(self) -> Past:
        """What was filled. Less than was made room for is a copy, so that no memory is held for nothing."""
        made = Past(self._keys, self._values)
        if self.filled == made.tokens:
            return made
        with torch.inference_mode():
            part = made.first(self.filled)
            return Past(part.keys.clone(), part.values.clone())

    def _put(self, keys: Any, values: Any) -> None:
        start, end = self.filled, self.filled + keys.shape[2]
        with torch.inference_mode():
            self._keys[:, :, start:end].copy_(keys)
            self._values[:, :, start:end].copy_(values)
        self.filled = end


def _stored(tensor: Any, kind: Kind) -> Array:
    if kind == "fp32":
        return _array(tensor.float())
    return _array(tensor.to(torch.bfloat16).contiguous().view(torch.int16)).view("<u2")


def _loaded(tensors: Mapping[str, Array], name: str, kind: Kind, device: Any) -> Any:
    array = tensors[name]
    if kind == "int8":
        return _on(array, device).float() * _on(tensors[f"{name}_scale"], device)
    if kind == "fp32":
        return _on(array, device)
    return _on(array.view("<i2"), device).view(torch.bfloat16)


def _quantised(tensor: Any, *, across: int) -> tuple[Array, Array]:
    exact = tensor.float()
    scale = exact.abs().amax(dim=across, keepdim=True) / _INT8_MAX
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    whole = torch.round(exact / divisor).clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return _array(whole), _array(scale)


def _array(tensor: Any) -> Array:
    found: Array = tensor.contiguous().cpu().numpy()
    return found


def _on(array: Array, device: Any) -> Any:
    return torch.from_numpy(array).to(device)
