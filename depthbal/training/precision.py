"""Which device and floating-point precision suit a machine, where nobody says."""

from typing import Any

import torch

from depthbal.errors import ConfigError


def usable_accelerator(accelerator: str) -> str:
    """Return the accelerator to train on: the one asked for, without Apple's MPS.

    Priors, sums and read-outs are float64, which MPS does not have.

    Args:
        accelerator: ``trainer.accelerator``.

    Raises:
        ConfigError: MPS was asked for.

    Example:
        >>> usable_accelerator("cpu")
        'cpu'
    """
    if accelerator == "mps":
        raise ConfigError(
            "MPS has no float64, which the losses need: use --trainer.accelerator cpu"
        )
    only_mps = torch.backends.mps.is_available() and not torch.cuda.is_available()
    return "cpu" if accelerator == "auto" and only_mps else accelerator


def default_precision(accelerator: str = "auto") -> str:
    """Return Lightning's name of the precision to train in.

    Mixed precision with bfloat16 where the hardware multiplies it natively: GPUs since Ampere,
    CPUs with AVX512-BF16 or AMX. Others would emulate it, several times slower than float32. The
    losses compute in float32 anyway. A training writes what it took into config.yaml;
    ``--trainer.precision 32-true`` (or any other of Lightning's) decides instead.

    Args:
        accelerator: ``trainer.accelerator``.

    Example:
        >>> default_precision("cpu") in ("bf16-mixed", "32-true")
        True
    """
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    native = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else _cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


def _cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16; False where torch cannot tell."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def default_device() -> str:
    """Return the device that evaluates and predicts: the first GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
