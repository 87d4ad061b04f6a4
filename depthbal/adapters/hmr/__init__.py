"""Human mesh recovery: SPIN's regressor re-trained with Balanced MSE."""

from depthbal.adapters.hmr.data import HmrDataModule
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.synthetic import SyntheticPeopleDataModule
from depthbal.adapters.hmr.task import HmrTask

__all__ = ["HmrDataModule", "HmrTask", "SpinNetwork", "SyntheticPeopleDataModule"]
