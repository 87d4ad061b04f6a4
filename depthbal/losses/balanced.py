"""The balanced loss over any prior, noise scale and noise family."""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from depthbal.losses.base import MAX_LENGTHS, RegressionLoss, require_one_of, scale_of
from depthbal.losses.buffers import DoubleBuffers
from depthbal.losses.evidence import Evidence, Precomputed, Tail, Wanted, wanted_derivatives
from depthbal.losses.families import FamilyKind, GaussianFamily, build_family
from depthbal.losses.family import NoiseFamily
from depthbal.losses.noise import NoiseKind, NoiseModule, build_noise, describe_noise
from depthbal.losses.readout import central_interval
from depthbal.losses.reduction import (
    CACHE_LABELS,
    DEVICE_LABELS,
    chunks,
    compute_dtype,
    count_labels,
    double_sum,
    hide,
    joint_mean,
    mean_over_ranks,
)
from depthbal.priors import GaussianMixture, Histogram

Scale = Literal["mean", "pixel", "none"]


class BalancedMSELoss(RegressionLoss):
    """Balanced MSE over any prior; use ``GAILoss``, ``BNILoss`` or ``BMCLoss``.

        L = mse_weight |p - y|^2 / (2 s^2) + balance_weight [log E(p) + D log s sqrt(2 pi)]

    for labels of dimension D and noise scale s = s(p), which is held fixed inside the integral.
    Subclasses estimate the prior. The arguments are the options that all balanced losses share.

    Of labels that are only known to lie beyond the end c of ``label_range`` (``beyond``), training
    labels of a density r per label unit, relative to the others, Theorem 1 makes

        L_beyond = -mse_weight log Phi((p - c) / s) + balance_weight [log E(p) - log r],
        E(p) = E_near(p) + r Phi((p - c) / s)

    and this E is that of all labels, those up to c included: their probabilities and that of a
    label beyond c sum to 1. r is taken from the histogram of the training labels where that counts
    labels ``beyond``; where it does not, E is E_near and nothing may be ``beyond``. Without it in E
    predictions beyond c would run away.

    Args:
        init_noise_sigma: (Initial) noise scale s in label units.
        noise: ``"fixed"``; ``"learned"`` (log s is a parameter, bounded to a factor of 1,000);
            ``"depth"``, a learned s(p) that grows with the prediction (``DepthNoise``); or a
            ``NoiseModule``.
        detach_noise: Whether s(p) sends no gradient to the prediction. False makes the loss an
            honest likelihood, in which predictions can pay with their noise.
        scale: ``"mean"`` multiplies by the detached mean of 2 s^2, as published, so that the value
            compares with the squared error; ``"pixel"`` by each label's own, which re-weights
            labels where s varies (beta-NLL with beta = 1, Seitzer et al., ICLR 2022); ``"none"``
            leaves the log-likelihood.
        family: Density f of the noise, ``"gaussian"`` or, beyond the paper by its Theorem 1 and
            over the priors of BNI and BMC, ``"laplace"`` for balanced L1, ``"huber"`` for balanced
            Huber, ``"student"`` for Student's t, which gives up on wrong labels.
        huber_delta: Error at which Huber's loss becomes linear, label units.
        student_df: Degrees of freedom of Student's t: the fewer, the sooner it gives up.
        tolerance: Largest error of the tabulated evidence in float32; float64 is always exact.
        mse_weight: Factor of the data term |p - y|^2 / (2 s^2).
        balance_weight: Factor of the rest. Below ``mse_weight`` it anchors vector labels in
            directions in which they hardly vary, where the two terms otherwise cancel.
        beyond_length: Length of label that those beyond the range stand for, over which their share
            pi of the training labels is spread evenly: r = pi / (1 - pi) / length. By default the
            density of the training labels goes on beyond c as it is below: r is that over the last
            s before c. The longer, the stronger the pull outwards.
        options: ``reduction``, ``label_range`` and ``event_dim`` of ``RegressionLoss``.
    """

    balances = True
    # Whether ``prior_for`` does without the batch's targets.
    prior_is_stored: ClassVar[bool] = False
    # The world to balance for, and the share of the balancing.
    relative_to, tau = "uniform", 1.0

    def __init__(
        self,
        *,
        init_noise_sigma: float = 1.0,
        noise: NoiseKind | NoiseModule = "fixed",
        detach_noise: bool = True,
        scale: Scale = "mean",
        family: FamilyKind = "gaussian",
        huber_delta: float = 1.0,
        student_df: float = 3.0,
        tolerance: float = 1e-5,
        mse_weight: float = 1.0,
        balance_weight: float = 1.0,
        beyond_length: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_one_of("scale", scale, ("mean", "pixel", "none"))
        if self.event_dim and (noise == "depth" or self.label_range is not None):
            raise ValueError(
                'expected no label_range and no noise "depth" for vectors: their read-out is preds '
                "itself"
            )
        if not (mse_weight >= 0 and balance_weight >= 0 and mse_weight + balance_weight > 0):
            raise ValueError(
                "expected mse_weight and balance_weight that are not negative and not both 0, got "
                f"{mse_weight} and {balance_weight}"
            )
        if not tolerance > 0:
            raise ValueError(f"expected a positive tolerance, got {tolerance}")
        if beyond_length is not None and not beyond_length > 0:
            raise ValueError(f"expected a positive beyond_length or None, got {beyond_length}")
        self.noise = build_noise(noise, init_noise_sigma)
        self.family: NoiseFamily = build_family(family, huber_delta, student_df)
        if self.event_dim and not isinstance(self.family, GaussianFamily):
            raise ValueError(f"expected family gaussian for vectors (event_dim=1), got {family}")
        self.detach_noise, self.scale, self.tolerance = detach_noise, scale, tolerance
        self.mse_weight, self.balance_weight = mse_weight, balance_weight
        self.beyond_length = beyond_length
        self._tail = DoubleBuffers("log_density")  # unset: no training label lies beyond
        self.init_args |= {"init_noise_sigma": init_noise_sigma, "noise": describe_noise(noise)}
        self.init_args |= {"family": family, "huber_delta": huber_delta, "student_df": student_df}
        kept = ("detach_noise", "scale", "tolerance", "mse_weight", "balance_weight")
        self.init_args |= {name: getattr(self, name) for name in (*kept, "beyond_length")}

    @abstractmethod
    def prior_for(self, target: Tensor, mask: Tensor | None, sigma: Tensor) -> GaussianMixture:
        """Return p_train as known for this batch; targets are 0 where the mask is False."""

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Take r from a histogram; see ``set_beyond``."""
        if isinstance(prior, Histogram):
            self.set_beyond(prior)

    def set_beyond(self, prior: Histogram) -> None:
        """Take r from the histogram of the training labels; of one without ``beyond`` nothing.

        Only Gaussian noise and scalar labels have it.
        """
        gaussian = isinstance(self.family, GaussianFamily)
        if not prior.beyond or self.label_range is None or self.event_dim or not gaussian:
            return
        low, high = self.label_range
        width = min(self.noise(torch.tensor(high, dtype=torch.float64)).item(), high - low)
        # a range that ends where no label is anywhere near
        least = 1 / (MAX_LENGTHS * (high - low))
        kernel = prior.relative_to(self.relative_to, self.tau)
        density = max(kernel.density_below(high, width), least)
        if self.beyond_length is not None:
            odds = prior.beyond / prior.total
            own = max(prior.density_below(high, width), least)
            density *= (odds / self.beyond_length / own) ** self.tau
        self._tail.set(torch.tensor(density, dtype=torch.float64).log())

    @property
    def tail(self) -> Tail | None:
        """The mass of the prior beyond the label range, relative to the labels in it."""
        if self._tail.is_unset or self.label_range is None:
            return None
        return Tail(self.label_range[1], self._tail.get("log_density"))

    def end_of_range(self, beyond: Tensor, target: Tensor) -> float:
        """Return the label beyond which labels are known to lie; see ``RegressionLoss``."""
        end = super().end_of_range(beyond, target)
        if not isinstance(self.family, GaussianFamily):
            raise ValueError('labels beyond the range need family "gaussian"')
        if self._tail.is_unset:
            raise ValueError(
                "no training label lies beyond the range, as far as this loss knows: give "
                "set_prior a histogram that counts them, which Histogram.update does for inf"
            )
        return end

    def censored(
        self, values: Tensor, preds: Tensor, mask: Tensor | None, beyond: Tensor
    ) -> Tensor:
        """Return the loss of labels beyond the range in the place of one-sided ones."""
        sigma = self._sigma(preds.detach() if self.detach_noise else preds, mask)
        more = self._beyond(preds, sigma, beyond)
        return values + more * self._unit(sigma, mask, values)

    def _beyond(self, preds: Tensor, sigma: Tensor, beyond: Tensor | None) -> Tensor:
        """Return what makes the likelihood of labels beyond c of their one-sided loss.

        a [-log Phi(z) - min(z, 0)^2 / 2] - b [log s sqrt(2 pi) + log r],  z = (p - c) / s
        """
        tail = cast(Tail, self.tail)
        z = hide(preds.to(sigma.dtype) - tail.end, beyond) / sigma
        # of -log Phi(z) the square is the larger part, and one-sided losses have it already
        zero, root = z.new_zeros(()), math.sqrt(0.5)
        near = (0.5 * torch.special.erfcx(-root * torch.where(z < 0, z, zero))).log()
        far = torch.log1p(-0.5 * torch.special.erfc(root * torch.where(z < 0, zero, z)))
        data = -torch.where(z < 0, near, far)
        constant = self.family.log_normaliser(sigma) + tail.log_density.to(z)
        return hide(self.mse_weight * data - self.balance_weight * constant, beyond)

    def _unit(self, sigma: Tensor, mask: Tensor | None, values: Tensor) -> Tensor | float:
        """Return the factor of the log-likelihood: () or one per label."""
        if self.scale == "none":
            return 1.0
        unit = self.family.unit(sigma.detach())
        return mean_over_ranks(unit, mask, values) if self.scale == "mean" and unit.ndim else unit

    def reduced(
        self, preds: Tensor, target: Tensor, mask: Tensor | None, beyond: Tensor | None = None
    ) -> Tensor:
        """Return the reduced loss; most losses go through ``_sum``."""
        sigma = None
        if (
            not (self.event_dim or self.noise.depends_on_preds or torch.compiler.is_compiling())
            and self.reduction != "none"
            and type(self).elementwise is BalancedMSELoss.elementwise
        ):
            sigma = self.noise(preds.detach()).to(preds.device, compute_dtype(preds))
        if sigma is None or sigma.numel() != 1:
            return super().reduced(preds, target, mask, beyond)
        on_cpu = preds.device.type == "cpu"
        if on_cpu:  # on a device it would be another reading of all labels
            self.require_finite(preds, target, mask)
        sigma = sigma.reshape(())
        if not self.prior_is_stored:
            target = hide(target.to(sigma.dtype), mask)
        flat, labels = preds.reshape(-1), target.reshape(-1)
        counts = None if mask is None else mask.reshape(-1)
        prior = self.prior_for(target, mask, sigma.detach())
        wanted = wanted_derivatives(preds, sigma)
        total: Tensor = Precomputed.apply(
            flat, sigma, lambda p, s: self._sum(p, s, labels, counts, prior, wanted, not on_cpu)
        )
        if beyond is not None:
            # on a CPU few are faster, elsewhere choosing them would wait for the device
            far = (preds[beyond], sigma, None) if on_cpu else (preds, sigma, beyond)
            total = total + double_sum(self._beyond(*far))
        if self.reduction == "mean":
            total = joint_mean(total, count_labels(preds, mask))
        unit = 1 if self.scale == "none" else self.family.unit(sigma.detach())
        return (total * unit).to(sigma.dtype)

    def _sum(
        self,
        preds: Tensor,
        sigma: Tensor,
        target: Tensor,
        mask: Tensor | None,
        prior: GaussianMixture,
        wanted: Wanted,
        count_bad: bool,
    ) -> Evidence:
        """Return the sum of flat scalar labels' loss for one noise scale, and its derivatives.

        Chunk by chunk all that survives is the gradient of the predictions, so that the whole
        holds as much memory as plain MSE. What the mask hides may be NaN.
        """
        family, (a, b) = self.family, (self.mse_weight, self.balance_weight)
        evidence_of = family.prepare(
            preds, sigma, prior, wanted, None, self.tolerance, mask, self.tail
        )
        dtype, device = sigma.dtype, preds.device
        gradient = torch.empty_like(preds, dtype=dtype) if wanted.by_preds else None
        sums = torch.zeros(5, dtype=torch.float64, device=device)
        rows = CACHE_LABELS if device.type == "cpu" else DEVICE_LABELS
        for predicted, true, counts, stored in chunks(rows, preds, target, mask, gradient):
            predicted = predicted.to(dtype)
            error = hide(predicted - true.to(dtype), counts)
            log_evidence, by_preds, by_sigma = evidence_of(predicted)
            if stored is not None and by_preds is not None:
                by_preds = by_preds if b == 1 else b * by_preds
                stored.copy_(hide(by_preds.add(family.slope(error, sigma), alpha=a), counts))
            energy, none = family.energy(error, sigma), error.new_zeros(())
            parts = [
                energy.sum(),
                hide(log_evidence, counts).sum(),
                none if by_sigma is None else hide(by_sigma, counts).sum(),
                none if by_sigma is None or family.degree else family.by_sigma(error, sigma).sum(),
                energy.isfinite().logical_not().count_nonzero() if count_bad else none,
            ]
            sums += torch.stack([part.double() for part in parts])
        energies, log_evidences, by_sigma, of_data, bad = sums.unbind()
        if count_bad:
            self.report_bad(bad)
        of_data = -family.degree * energies / sigma.double() if family.degree else of_data
        by_sigma = a * of_data + b * by_sigma if wanted.by_sigma else None
        return Evidence(a * energies + b * log_evidences, gradient, by_sigma)

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return L(p, y) per label, in units of the squared error unless ``scale="none"``."""
        if mask is not None and not self.event_dim:
            # Hidden predictions move from 0 to the mean of the others: the evidence is tabulated
            # over the range of all of them, which 0 could widen manifold.
            centre = preds.detach().sum() / mask.sum().clamp(min=1)
            preds = preds + hide(centre.expand_as(preds).contiguous(), ~mask)
        sigma = self._sigma(preds.detach() if self.detach_noise else preds, mask)
        prior = self.prior_for(target, mask, sigma.detach())
        per_axis = sigma[..., None] if self.event_dim and sigma.ndim else sigma
        data = self.per_label(self.family.energy(preds - target, per_axis))
        sigma_of = self.noise if self.noise.depends_on_preds and not self.event_dim else None
        balance = self.family.evidence(preds, prior, sigma, sigma_of, self.tolerance, self.tail)
        values = self.mse_weight * data + self.balance_weight * balance
        return values * self._unit(sigma, mask, values)

    def readout(self, preds: Tensor) -> Tensor:
        """Return the balanced prediction: the mean of the noise truncated to ``label_range``.

        Without a label range the balanced world is the whole line and ``preds`` is returned.
        """
        if self.label_range is None:
            return preds
        return self.family.readout(preds, self.noise(preds.detach()).detach(), self.label_range)

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the ``central_interval`` of scalar labels under normal noise, None for others."""
        if self.event_dim or not isinstance(self.family, GaussianFamily):
            return None
        return central_interval(preds, self.noise(preds.detach()), self.label_range)

    def _sigma(self, preds: Tensor, mask: Tensor | None) -> Tensor:
        """Return the noise scale: shape (), or one per label."""
        labels = preds.shape[: preds.ndim - self.event_dim]
        source = f"a noise ({type(self.noise).__name__})"
        sigma = scale_of(self.noise(preds), labels, preds, source)
        if mask is None or not sigma.ndim:
            return sigma
        # What the mask hides must not set the scale of the others: it gets their mean.
        counted = mask.sum()
        total = hide(sigma.detach(), mask).sum() + (counted == 0)
        return torch.where(mask, sigma, total / counted.clamp(min=1))
