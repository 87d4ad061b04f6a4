"""The exact sum of scalar labels as one compiled kernel, where a compiler is.

The eager sum writes and reads an n x K matrix a dozen times; compiled, the whole sum of a
prediction stays in registers and memory sees the predictions and the results only.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from depthbal.losses.exact import Components, Evidence, Wanted, scalars

logger = logging.getLogger(__name__)

# Kernels are compiled for these numbers of components; a mixture is filled up with components of
# weight 0. Batches with varying numbers of targets so meet a handful of kernels, not one each.
FEWEST_COMPONENTS = 16


class CompiledSum:
    """The compiled sum; it gives up for good, with one message, where compiling fails."""

    def __init__(self) -> None:
        self._compiled: Callable[..., Evidence] | None = None
        self.failed = False

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
        try:
            if self._compiled is None:
                self._compiled = torch.compile(_sum)  # importing the compiler takes a second
            return self._compiled(*_with_sizes(preds, sigma, *fill_up(mixture)), wanted)
        # Whatever a compiler raises, the eager sum gives the same numbers.
        except Exception as error:
            self.failed = True
            logger.warning(
                "the evidence could not be compiled for %s and is summed without: %s",
                preds.device.type,
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )
            return None


def _with_sizes(preds: Tensor, sigma: Tensor, *mixture: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors marked so that one kernel serves any number of predictions."""
    preds, sigma = preds.detach(), sigma.detach()  # the caller's tensors stay without marks
    for tensor in (preds, sigma)[: 1 + sigma.ndim]:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    for tensor in mixture:
        torch._dynamo.mark_static(tensor, 0)
    return preds, sigma, *mixture


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
    # Where compilation is switched off or given up, torch.compile calls the function as it is.
    if not torch.compiler.is_compiling():
        raise RuntimeError("torch.compile is switched off")
    return scalars(preds, sigma, Components(log_weights, means, variances), wanted)
