"""Keys and values between a model's tensors and the arrays of a file.

fp32 is exact for a float32 model, bf16 for a bfloat16 one. int8 halves bf16: keys have channels that are large
for every token, so they share a scale for each channel; values do not, so theirs is one for each token (KIVI,
Liu et al. 2024, section 3). A scale of 0 stands for nothing but zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from memos.memory.activation.segment import Array, Kind
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
        if kind == "int8":
            keys, values = (
                _on(tensors[name], device).float() * _on(tensors[f"{name}_scale"], device)
                for name in ("k", "v")
            )
        else:
            keys, values = (_loaded(tensors[name], kind, device) for name in ("k", "v"))
        return Past(keys.to(dtype), values.to(dtype))


def _stored(tensor: Any, kind: Kind) -> Array:
    if kind == "fp32":
        return _array(tensor.float())
    return _array(tensor.to(torch.bfloat16).contiguous().view(torch.int16)).view("<u2")


def _loaded(array: Array, kind: Kind, device: Any) -> Any:
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
