"""One seed's training problem: a regressor, a loss, and the labels that the loss sees."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from depthbal.losses import FixedNoise, LearnedNoise
from depthbal.synthetic.data import SyntheticData
from depthbal.synthetic.methods import Method, Settings, Task
from depthbal.synthetic.networks import SmallNetwork

WEIGHT_DECAY = 1e-3  # of networks, in units of the mean loss
LEARNED_START = 1.5  # sigma where a learned noise scale starts, as published


class Problem:
    """A regressor and a loss on one seed's labels, for solvers that go step by step.

    Args:
        data: Of all seeds.
        index: Of this seed.
        method: Which loss to minimise.
        settings: Batch size, components, noise scale.
        model: Regressor of inputs (n, D).
        scale: Of the balanced losses: ``"none"`` for the likelihood, ``"mean"`` as published.
    """

    def __init__(
        self,
        data: SyntheticData,
        index: int,
        method: Method,
        settings: Settings,
        model: nn.Module,
        scale: str,
    ) -> None:
        noise = LearnedNoise(LEARNED_START) if method.learned else FixedNoise(settings.noise_sigma)
        task = Task(data, index, settings, noise, reduction="none", scale=scale)
        self.loss = method.build(task).double()
        self.model = model
        self.inputs, self.labels = data.inputs[index], data.labels[index]
        self.counted = data.counted[index]
        weights = method.label_weights(data)
        self.weights = None if weights is None else weights[index]

    def penalty(self) -> Tensor:
        """Return what keeps networks from bending to single labels; 0 for linear regressors."""
        if not isinstance(self.model, SmallNetwork):
            return self.labels.new_zeros(())
        return WEIGHT_DECAY * self.model.bend()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return what is learned: the regressor's parameters, then those of the noise."""
        yield from self.model.parameters()
        yield from self.loss.noise_parameters()

    def mean_loss(self, batches: list[Tensor] | list[slice]) -> Tensor:
        """Return the mean loss over the labels of some batches; each batch is seen by itself."""
        total = self.labels.new_zeros(())
        count = 0
        for batch in batches:
            mask = self.counted[batch]
            preds, labels = self.model(self.inputs[batch]), self.labels[batch]
            if not self.loss.event_dim:
                preds, labels = preds[..., 0], labels[..., 0]
            values = self.loss(preds, labels, mask)
            total = total + (values if self.weights is None else values * self.weights[batch]).sum()
            count += int(mask.sum())
        return total / max(1, count)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Return predictions (m, D)."""
        preds: Tensor = self.model(inputs)
        return preds
