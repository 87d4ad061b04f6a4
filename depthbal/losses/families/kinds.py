"""Noise families by name."""

from depthbal.losses.families.base import FamilyKind, GaussianFamily, NoiseFamily


def build_family(kind: FamilyKind, huber_delta: float) -> NoiseFamily:
    """Return the family of that name.

    Example:
        >>> build_family("gaussian", 1.0)
        GaussianFamily()
    """
    if kind == "gaussian":
        return GaussianFamily()
    if kind == "laplace":
        from depthbal.losses.families.laplace import LaplaceFamily

        return LaplaceFamily()
    if kind == "huber":
        from depthbal.losses.families.huber import HuberFamily

        return HuberFamily(huber_delta)
    raise ValueError(f"expected family gaussian, laplace or huber, got {kind!r}")
