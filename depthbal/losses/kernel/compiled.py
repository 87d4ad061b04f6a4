"""The exact sum of scalar labels as one compiled kernel, where a compiler is.

The eager sum writes and reads an n x K matrix a dozen times; compiled, the whole sum of a
prediction stays in registers and memory sees the predictions and the results only.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.kernel.exact import Components, Evidence, Wanted, scalars

logger = logging.getLogger(__name__)

# Kernels are compiled for powers of two of components from here on; a mixture is filled up with
# components of weight 0, so that batches of varying targets meet a handful of kernels.
FEWEST_COMPONENTS = 16


class CompiledSum:
    """The sum, compiled at its first use; where that fails it says so once and gives up."""

    def __init__(self) -> None:
        self._compiled: Callable[..., Any] | None = None
        self.failed = False

    def __call__(
        self, preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted
    ) -> Evidence | None:
        """Return the evidence of flat scalar predictions, or None where nothing compiles."""
        if self.failed:
            return None
        count = mixture.log_weights.numel()
        missing = max(FEWEST_COMPONENTS, 1 << (count - 1).bit_length()) - count
        filling = zip(mixture[:3], (-torch.inf, 0.0, 1.0), strict=True)
        parts = [functional.pad(part, (0, missing), value=value) for part, value in filling]
        for part in parts:
            torch._dynamo.mark_static(part, 0)
        labels = preds.detach(), sigma.detach()  # the caller's stay without marks
        for tensor in labels:
            if tensor.ndim:  # one kernel for any number of labels
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        try:
            if self._compiled is None:
                self._compiled = torch.compile(_sum)  # importing the compiler takes a second
            result: Evidence = self._compiled(*labels, *parts, wanted)
            return result
        # Whatever a compiler raises, the eager function gives the same numbers.
        except Exception as error:
            self.failed = True
            cause = getattr(error, "inner_exception", error)
            logger.warning(
                "the evidence could not be compiled for %s and is computed without: %s",
                preds.device.type,
                (str(cause) or type(cause).__name__).splitlines()[0],
            )
            return None


def _sum(preds: Tensor, sigma: Tensor, *parts: Any) -> Evidence:
    if not torch.compiler.is_compiling():  # torch.compile calls it as it is: off, or given up
        raise RuntimeError("torch.compile is switched off")
    return scalars(preds, sigma, Components(*parts[:3]), parts[3])
