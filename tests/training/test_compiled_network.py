"""Compiling changes nothing but the speed, and failing to compile changes nothing at all."""

import copy

import pytest
import torch
from torch import nn

from depthbal import load_predictor
from depthbal.losses import GAILoss, MSELoss
from depthbal.training.compiled_network import CompiledNetwork
from depthbal.training.task import DepthTask
from depthbal.training.train import train
from tests.training.helpers import DropoutNet, checkpoint_of, same_weights, tiny_config, train_tiny


@pytest.fixture
def graphs(monkeypatch):
    """Compile into graphs that run as they are, and count them."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(CompiledNetwork, "backend", staticmethod(backend))
    yield compiled
    torch.compiler.reset()


@pytest.fixture
def no_compiler(monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("no compiler on this machine\nand more")

    torch.compiler.reset()
    monkeypatch.setattr(CompiledNetwork, "backend", staticmethod(backend))
    yield
    torch.compiler.reset()


def small_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 8, 8, generator=generator)
    return {"image": image, "depth": 1 + 8 * torch.rand(2, 1, 4, 4, generator=generator)}


def loss_and_gradients(task: DepthTask) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)  # dropout
    loss = task.compute_loss(small_batch())
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in task.parameters()]


def pair_of_tasks() -> tuple[DepthTask, DepthTask]:
    network = DropoutNet()
    plain = DepthTask(copy.deepcopy(network), MSELoss())
    return plain, DepthTask(network, MSELoss(), compile=True)


def test_loss_and_gradients_are_those_of_the_plain_network(graphs):
    plain, compiled = (loss_and_gradients(task) for task in pair_of_tasks())
    assert len(graphs) > 0
    torch.testing.assert_close(compiled, plain)


def test_parameters_keep_their_names_and_are_the_same(graphs):
    plain, compiled = pair_of_tasks()
    loss_and_gradients(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in compiled.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert not any(isinstance(module, CompiledNetwork) for module in compiled.modules())
    assert isinstance(compiled.model, DropoutNet)


def test_training_and_validation_run_compiled_and_resume_to_the_plain_runs_weights(
    graphs, tmp_path
):
    model = {"model": {"class_path": "tests.training.helpers.DropoutNet"}}
    config = tiny_config(tmp_path / "tiny.yaml", model=model, trainer={"max_epochs": 3})
    plain = train_tiny(config, tmp_path / "plain")
    assert not graphs
    short = ["--model.compile", "true", "--trainer.max_epochs", "1"]
    compiled = train_tiny(config, tmp_path / "compiled", *short)
    assert len(graphs) >= 2  # batch statistics in training, running ones in validation
    before = len(graphs)
    torch.compiler.reset()
    train(["--resume", str(compiled), "--trainer.max_epochs", "3"], compiled / "config.yaml")
    assert len(graphs) > before
    one, two = (checkpoint_of(run)["state_dict"] for run in (plain, compiled))
    assert one.keys() == two.keys()
    assert "compile: true" in (compiled / "config.yaml").read_text()
    load_predictor(compiled, model=DropoutNet())


def test_without_a_compiler_training_is_the_plain_one_and_says_why_once(
    no_compiler, caplog, tmp_path
):
    model = {"model": {"class_path": "tests.training.helpers.DropoutNet"}}
    config = tiny_config(tmp_path / "tiny.yaml", model=model)
    plain = train_tiny(config, tmp_path / "plain")
    fallen_back = train_tiny(config, tmp_path / "compiled", "--model.compile", "true")
    assert same_weights(plain, fallen_back)
    messages = [r.getMessage() for r in caplog.records if "could not be compiled" in r.message]
    assert len(messages) == 1
    assert "no compiler on this machine" in messages[0]
    assert "\n" not in messages[0]


def test_an_error_of_the_network_is_no_compilers(graphs, caplog):
    network = CompiledNetwork(nn.Conv2d(3, 1, 1))
    with pytest.raises(RuntimeError, match="channels"):
        network(torch.zeros(1, 2, 4, 4))
    assert "compiled" not in caplog.text
    assert not network.failed


def test_too_little_memory_is_not_answered_by_needing_more(monkeypatch):
    network = CompiledNetwork(nn.Conv2d(3, 1, 1))

    def full(images):
        raise torch.OutOfMemoryError("the GPU is full")

    monkeypatch.setattr(network, "_call_compiled", full)
    with pytest.raises(torch.OutOfMemoryError):
        network(torch.zeros(1, 3, 4, 4))
    assert not network.failed


def test_a_task_is_not_compiled_unless_asked():
    task = DepthTask(DropoutNet(), GAILoss())
    assert task.network is task.model
