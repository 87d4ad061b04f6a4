import torch

from depthbal.models.up_projection import UpProjection


def test_a_constant_input_gives_the_closed_form():
    """With all-ones kernels and fresh statistics each branch counts the taps inside the image."""
    block = UpProjection(1, 1).eval()
    for parameter in (block.conv1.weight, block.conv1_2.weight, block.conv2.weight):
        torch.nn.init.ones_(parameter)
    with torch.inference_mode():
        out = block(torch.ones(1, 1, 4, 4), (9, 11))
    norm = 1 / (1 + 1e-5) ** 0.5
    centre = 25 * norm * 9 * norm + 25 * norm  # both branches, far from the border
    assert torch.isclose(out[0, 0, 4, 5], torch.tensor(centre))
    first = torch.tensor([[9.0, 12.0], [12.0, 16.0]]).sum() * norm  # taps of the corner's 5x5
    assert torch.isclose(out[0, 0, 0, 0], first * norm + 9 * norm)


def test_negative_sums_become_zero():
    block = UpProjection(1, 1).eval()
    torch.nn.init.zeros_(block.conv1_2.weight)
    torch.nn.init.constant_(block.conv2.weight, -1.0)
    with torch.inference_mode():
        assert torch.equal(block(torch.ones(1, 1, 3, 3), (6, 6)), torch.zeros(1, 1, 6, 6))


def test_leaves_no_bias_in_front_of_a_normalisation():
    assert [name for name, _ in UpProjection(4, 2).named_parameters() if "conv" in name] == [
        "conv1.weight",
        "conv1_2.weight",
        "conv2.weight",
    ]
