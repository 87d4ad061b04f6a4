import pytest
import torch
from torch import nn

from depthbal.models import SmpDepth
from depthbal.models.feature_bins import feature_bins

EDGES = torch.arange(0.0, 101.0, dtype=torch.float64)


def ramp(height, width):
    """Labels that say where they are: ten times the row and the column."""
    rows, columns = torch.arange(height), torch.arange(width)
    return (10.0 * rows[:, None] + columns)[None, None] + 0.5


def test_every_feature_gets_the_label_in_its_middle():
    target = ramp(4, 6)
    same = feature_bins(target, target < 30, EDGES, (4, 6))
    assert same[0, 2:].tolist() == [[20, 21, 22, 23, 24, 25], [100] * 6]
    coarser = feature_bins(ramp(8, 8), None, EDGES, (2, 2))
    assert coarser.tolist() == [[[22, 26], [62, 66]]]
    finer = feature_bins(ramp(2, 3), None, EDGES, (4, 6))
    assert finer[0, 1:3].tolist() == [[0, 0, 1, 1, 2, 2], [10, 10, 11, 11, 12, 12]]
    # features beyond the labels have none; the middle of a third row of 2 x 2 is row 5
    for size, with_label in (((8, 8), 5), ((4, 4), 2), ((16, 16), 10)):
        found = feature_bins(ramp(5, 8), None, EDGES, size)[0]
        assert (found[with_label:] == 100).all()
        assert (found[:with_label] < 100).all()


def test_the_features_of_a_padded_smp_network_meet_the_labels_of_their_own_pixels():
    """The output at a pixel depends on the head's input around the same pixel."""
    torch.manual_seed(0)
    args = {"decoder_channels": [16, 8, 8, 4, 4]}
    network = SmpDepth("unet", "mobilenet_v2", arch_args=args).eval()
    head = next(m for m in network.network.segmentation_head if isinstance(m, nn.Conv2d))
    seen = []
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output = network(torch.randn(1, 3, 36, 48))  # extended to 64 x 64
    features = seen[0]
    features.retain_grad()
    output[0, 0, 10, 20].backward()
    strongest = features.grad.abs().sum(1)[0]
    rows, columns = (strongest > 0).nonzero(as_tuple=True)
    place = (rows.float().mean().item(), columns.float().mean().item())
    assert place == (10, 20)
    target = torch.full((1, 1, *output.shape[-2:]), 3.5)
    target[0, 0, 10, 20] = 7.5
    found = feature_bins(target, None, EDGES, tuple(features.shape[-2:]))
    assert (found == 7).nonzero().tolist() == [[0, 10, 20]]
    assert (found[:, output.shape[-2] :] == 100).all()


def test_labels_of_images_are_one_per_feature_vector_and_none_where_nan():
    for target in (torch.tensor([3, 7]), torch.tensor([[3.0], [7.9]])):
        assert feature_bins(target, None, EDGES, ()).tolist() == [3, 7]
    target = torch.tensor([3.0, float("nan"), 5.0])
    assert feature_bins(target, None, EDGES, ()).tolist() == [3, 100, 5]
    assert feature_bins(target, target > 4, EDGES, ()).tolist() == [100, 100, 5]


@pytest.mark.parametrize(
    ("target", "size"),
    [(torch.zeros(2), (4, 4)), (torch.zeros(2, 1, 4, 4), ()), (torch.zeros(2, 3), ())],
)
def test_labels_of_another_form_than_the_features_are_named(target, size):
    with pytest.raises(ValueError, match=r"one label per feature.*layer"):
        feature_bins(target, None, EDGES, size)
