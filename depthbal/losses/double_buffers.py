"""Buffers that may be unset, restore into an unset module, and are never rounded to half."""

from typing import Any

import torch
from torch import Tensor, nn


class DoubleBuffers(nn.Module):
    """A few named tensors in float64, saved in the state dict and moved with their loss.

    Args:
        names: Names of the buffers; all are set together.

    Example:
        >>> buffers = DoubleBuffers("edges")
        >>> buffers.set(edges=torch.tensor([0.0, 0.1]))
        >>> fresh = DoubleBuffers("edges")
        >>> _ = fresh.load_state_dict(buffers.half().state_dict())
        >>> fresh.get("edges").dtype
        torch.float64
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.register_buffer(name, None)

    def set(self, **tensors: Tensor) -> None:
        """Replace all tensors, keeping the device of those before."""
        device = None if self.is_unset else self.get(self.names[0]).device
        for name in self.names:
            setattr(self, name, tensors[name].detach().to(device, torch.float64, copy=True))

    @property
    def is_unset(self) -> bool:
        """Whether nothing has been set or loaded."""
        return self._buffers[self.names[0]] is None

    def get(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            ValueError: It is unset.
        """
        tensor = self._buffers[name]
        if tensor is None:
            raise ValueError("no prior is set: call set_prior(histogram) or load a state dict")
        return tensor

    def _apply(self, fn: Any, recurse: bool = True) -> "DoubleBuffers":
        """Move with the module, but keep double precision: these are a handful of numbers."""
        before = {name: self._buffers[name] for name in self.names}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Make room for tensors of the saved size, so that unset ones can be restored."""
        for name in self.names:
            saved = state_dict.get(prefix + name)
            if saved is not None:
                current = self._buffers[name]
                device = saved.device if current is None else current.device
                self._buffers[name] = torch.empty(saved.shape, dtype=torch.float64, device=device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
