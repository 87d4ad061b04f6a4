"""Which device and floating-point precision suit a machine, where nobody says."""

import torch


def default_precision(accelerator: str = "auto") -> str:
    """Return Lightning's name of the precision to train in.

    A GPU with native bfloat16 trains in mixed precision; the losses compute in float32 anyway.
    Everything else trains in float32: most CPUs only emulate bfloat16, several times slower.

    Args:
        accelerator: ``trainer.accelerator``.

    Example:
        >>> default_precision("cpu")
        '32-true'
    """
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    native = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if native else "32-true"


def default_device() -> str:
    """Return the device that evaluates and predicts: the first GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
