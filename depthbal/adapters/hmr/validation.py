"""What a validation split of poses is measured by."""

import torch
from torch import Tensor
from torchmetrics import Metric

from depthbal.adapters.hmr.distance import geodesic_pose_distance

REGION = 0.1  # radians of the distance to the mean pose; narrower ones are too empty to choose by


class PoseValidation(Metric):
    """Mean joint angle in degrees, over all samples and over regions of the distance to the mean.

    Every region of 0.1 radians weighs alike, so that an epoch cannot win by common poses alone.

    Example:
        >>> validation = PoseValidation()
        >>> validation.update(torch.eye(3).expand(1, 24, 3, 3), torch.eye(3).expand(1, 24, 3, 3))
        >>> validation.compute()["val/angle"]
        0.0
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor
    mean_rotmats: Tensor

    def __init__(self) -> None:
        super().__init__()
        regions = int(torch.pi / REGION) + 1
        zeros = torch.zeros(regions, dtype=torch.float64)
        self.add_state("sums", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("counts", zeros.clone(), dist_reduce_fx="sum")
        self.register_buffer("mean_rotmats", torch.eye(3).repeat(24, 1, 1))

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of rotation matrices (B, 24, 3, 3)."""
        angle = geodesic_pose_distance(preds, target).rad2deg().to(self.sums.dtype)
        far = geodesic_pose_distance(target, self.mean_rotmats)
        region = (far / REGION).long().clamp(max=len(self.sums) - 1)
        self.sums.index_add_(0, region, angle)
        self.counts.index_add_(0, region, torch.ones_like(angle))

    def compute(self) -> dict[str, float]:
        """Return the metrics by the names they are logged under; nothing without samples."""
        filled = self.counts > 0
        if not filled.any():
            return {}
        of_region = self.sums[filled] / self.counts[filled]
        return {
            "val/angle_regions": float(of_region.mean()),
            "val/angle": float(self.sums.sum() / self.counts.sum()),
        }
