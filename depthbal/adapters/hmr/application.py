"""Human mesh recovery as an application of the training engine."""

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.evaluation import evaluate_trained
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.table import print_metrics
from depthbal.adapters.hmr.task import HmrTask
from depthbal.training import schedules
from depthbal.training.application import Application

HMR = Application(
    prog="tools/train_hmr.py",
    task=HmrTask,
    data=HmrDataModule,
    evaluate=evaluate_trained,
    show=print_metrics,
    short_names=(HmrDataModule, SpinNetwork, schedules.WarmupCosine),
)
