"""Tensors of a loss that may be unset, restore into an unset loss, and are never rounded."""

from typing import Any

import torch
from torch import Tensor, nn

from depthbal.priors import GaussianMixture


class Unrounded(nn.Module):
    """A module whose tensors move with it but are never rounded: they are a handful of numbers."""

    def _apply(self, fn: Any, recurse: bool = True) -> "Unrounded":
        def unrounded(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return tensor.to(moved.device) if moved.itemsize < tensor.itemsize else moved

        super()._apply(unrounded, recurse)  # type: ignore[no-untyped-call]
        return self


class DoubleBuffers(Unrounded):
    """A few named tensors in float64, all set together, saved and moved with their loss."""

    place: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        # moves with the loss, so that what is set later comes to where it is
        self.register_buffer("place", torch.zeros(()), persistent=False)
        for name in names:
            self.register_buffer(name, None)

    def set(self, *tensors: Tensor) -> None:
        """Replace all tensors."""
        for name, tensor in zip(self.names, tensors, strict=True):
            setattr(self, name, tensor.detach().to(self.place.device, torch.float64, copy=True))

    @property
    def is_unset(self) -> bool:
        """Whether nothing has been set or loaded."""
        return self._buffers[self.names[0]] is None

    def get(self, name: str) -> Tensor:
        """Return a tensor; unset it is a ValueError."""
        tensor = self._buffers[name]
        if tensor is None:
            raise ValueError("no prior is set: call set_prior(histogram) or load a state dict")
        return tensor

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name in self.names:  # make room for tensors of the saved size
            saved = state_dict.get(prefix + name)
            if saved is not None:
                self._buffers[name] = self.place.new_empty(saved.shape, dtype=torch.float64)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class RequiredBuffers(DoubleBuffers):
    """Tensors without which a loss cannot be used: its prior."""


class PriorBuffers(RequiredBuffers):
    """A Gaussian mixture, held as buffers."""

    def __init__(self) -> None:
        super().__init__("weights", "means", "variances")
        self._mixture: GaussianMixture | None = None  # kept: it decomposes its covariances once

    def set_mixture(self, mixture: GaussianMixture) -> None:
        """Replace the mixture."""
        self.set(mixture.weights, mixture.means, mixture.variances)
        self._mixture = mixture

    @property
    def mixture(self) -> GaussianMixture:
        """The mixture, on the buffers' device; unset it is a ValueError."""
        parts, known = [self.get(name) for name in self.names], self._mixture
        if known is None or known.weights is not parts[0]:  # new, or moved
            report = None if known is None else known.fit_report
            known = self._mixture = GaussianMixture.unchecked(*parts)
            known.fit_report = report
        return known

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._mixture = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
