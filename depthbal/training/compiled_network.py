"""The network as compiled kernels, where a compiler is."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class CompiledNetwork(nn.Module):
    """Call a network through torch.compile; where that fails, say so once and call it as it is.

    The network is held outside the tree of modules: whoever owns it keeps its parameters, under
    the names that they have without compiling.

    Args:
        network: From images (B, 3, H, W) to metres (B, 1, h, w).

    Example:
        >>> network = nn.Conv2d(3, 1, 1)
        >>> list(CompiledNetwork(network).state_dict())
        []
    """

    backend: str | Callable[..., Any] = "inductor"
    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # past nn.Module, which would make it a child
        object.__setattr__(self, "network", network)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self.failed = False

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output."""
        if self.failed:
            return self.network(images)  # type: ignore[no-any-return]
        try:
            return self._call_compiled(images)
        except torch.OutOfMemoryError:
            raise
        # Whatever a compiler raises; what the network itself raises comes again from the next line.
        except Exception as error:
            preds: Tensor = self.network(images)
            self.failed = True
            cause = getattr(error, "inner_exception", error)  # the backend's own
            reason = (str(cause) or "no reason given").strip().splitlines()[0]
            log.warning(
                "The network could not be compiled and is trained without: %s: %s",
                type(cause).__name__,
                reason,
            )
            return preds

    def _call_compiled(self, images: Tensor) -> Tensor:
        if self._compiled is None:
            compiled = torch.compile(self.network, backend=self.backend)
            object.__setattr__(self, "_compiled", compiled)
        return self._compiled(images)  # type: ignore[misc]
