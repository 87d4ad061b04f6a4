"""Functions of labels as compiled kernels, where a compiler is; the exact sum before all.

The eager sum writes and reads an n x K matrix a dozen times; compiled, the whole sum of a
prediction stays in registers and memory sees the predictions and the results only.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from depthbal.losses.kernel.exact import Components, Evidence, Wanted, scalars

logger = logging.getLogger(__name__)

# Kernels are compiled for these numbers of components; a mixture is filled up with components of
# weight 0. Batches with varying numbers of targets so meet a handful of kernels, not one each.
FEWEST_COMPONENTS = 16


def _reason(error: Exception) -> str:
    """Return the first line of what went wrong, behind the backend's own wrapping."""
    cause = getattr(error, "inner_exception", error)
    text = str(cause) or str(error)
    return text.splitlines()[0] if text else type(cause).__name__


class CompiledFunction:
    """A function compiled at its first use; where that fails it says so once and gives up for good.

    Args:
        function: Of tensors; it must call ``require_compiling``.
        name: What it computes, for the message.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function, self._name = function, name
        self._compiled: Callable[..., Any] | None = None
        self.failed = False

    def run(self, device: torch.device, *arguments: Any) -> Any:
        """Return the function's result, or None where nothing compiles."""
        if self.failed:
            return None
        try:
            if self._compiled is None:
                # Importing the compiler takes a second.
                self._compiled = torch.compile(self._function)
            return self._compiled(*arguments)
        # Whatever a compiler raises, the eager function gives the same numbers.
        except Exception as error:
            self.failed = True
            logger.warning(
                "%s could not be compiled for %s and is computed without: %s",
                self._name,
                device.type,
                _reason(error),
            )
            return None


class CompiledSum(CompiledFunction):
    """The compiled sum of scalar labels."""

    def __init__(self) -> None:
        super().__init__(_sum, "the evidence")

    def __call__(
        self, preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted
    ) -> Evidence | None:
        """Return the evidence of flat scalar predictions (n,), or None where nothing compiles.

        Args:
            preds: (n,), float32.
            sigma: Shape () or (n,).
            mixture: In the type and on the device of ``preds``.
            wanted: Derivatives to compute.
        """
        if self.failed:
            return None
        mixture_of_fixed_size = fill_up(mixture)
        for tensor in mixture_of_fixed_size:
            torch._dynamo.mark_static(tensor, 0)
        preds, sigma = of_any_size(preds, sigma)
        result: Evidence | None = self.run(
            preds.device, preds, sigma, *mixture_of_fixed_size, wanted
        )
        return result


def of_any_size(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return flat tensors marked so that one kernel serves any number of labels."""
    detached = tuple(tensor.detach() for tensor in tensors)  # the caller's stay without marks
    for tensor in detached:
        if tensor.ndim:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return detached


def require_compiling() -> None:
    """Raise an error where torch.compile calls a function as it is: switched off, or given up."""
    if not torch.compiler.is_compiling():
        raise RuntimeError("torch.compile is switched off")


def fill_up(mixture: Components) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-weights, means and variances of a power of two of components.

    Example:
        >>> two = Components(torch.zeros(2), torch.zeros(2), torch.ones(2))
        >>> fill_up(two)[0][:4]
        tensor([0., 0., -inf, -inf])
    """
    count = mixture.log_weights.numel()
    missing = max(FEWEST_COMPONENTS, 1 << (count - 1).bit_length()) - count
    pad = torch.nn.functional.pad
    return (
        pad(mixture.log_weights, (0, missing), value=-torch.inf),
        pad(mixture.means, (0, missing)),
        pad(mixture.variances, (0, missing), value=1.0),
    )


def _sum(
    preds: Tensor,
    sigma: Tensor,
    log_weights: Tensor,
    means: Tensor,
    variances: Tensor,
    wanted: Wanted,
) -> Evidence:
    require_compiling()
    return scalars(preds, sigma, Components(log_weights, means, variances), wanted)
