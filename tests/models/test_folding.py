import pytest
import torch
from torch.nn import functional

from depthbal.models.folding import cheapest_form, enlarged_convs
from depthbal.models.resnet_mff import UpProjection

FORMS = ["plain", "rows", "full"]
SIZES = [
    ((4, 6), (8, 12)),
    ((5, 7), (9, 14)),
    ((3, 1), (13, 5)),
    ((8, 9), (5, 4)),
    ((1, 2), (1, 2)),
]


def make_inputs(low, size, dtype=torch.float64, channels=6, outputs=(3, 2), batch=2):
    torch.manual_seed(sum(low) + sum(size))
    features = torch.randn(batch, channels, *low, dtype=dtype)
    weights = [torch.randn(count, channels, 5, 5, dtype=dtype) for count in outputs]
    grads = [torch.randn(batch, count, *size, dtype=dtype) for count in outputs]
    return features, weights, grads


def plainly(features, weights, size):
    wide = functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
    return [functional.conv2d(wide, weight, padding=2) for weight in weights]


def values_and_gradients(compute, features, weights, grads):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (features, *weights)]
    outputs = compute(leaves[0], leaves[1:])
    torch.autograd.backward(outputs, grads)
    return [output.detach() for output in outputs], [leaf.grad for leaf in leaves]


@pytest.mark.parametrize(("low", "size"), SIZES)
@pytest.mark.parametrize("form", FORMS)
# with 90 channels there are more weights than results, which are then rearranged instead
@pytest.mark.parametrize("channels", [6, 90])
def test_every_form_has_the_plain_values_and_gradients(low, size, form, channels):
    inputs = make_inputs(low, size, channels=channels)
    found = values_and_gradients(lambda x, w: enlarged_convs(x, w, size, form), *inputs)
    expected = values_and_gradients(lambda x, weights: plainly(x, weights, size), *inputs)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", ["rows", "full"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_autocast_errs_by_the_rounding_of_three_results_instead_of_one(form, layout):
    size = (15, 19)
    features, weights, grads = make_inputs((8, 10), size, torch.float32, channels=48)
    features = features.contiguous(memory_format=layout)
    weights = [weight.contiguous(memory_format=layout) for weight in weights]
    truth = values_and_gradients(
        lambda x, weights: plainly(x, weights, size), features, weights, grads
    )
    grads = [grad.bfloat16() for grad in grads]

    def errors(compute):
        with torch.autocast("cpu", torch.bfloat16):
            found = values_and_gradients(compute, features, weights, grads)
        assert {output.dtype for output in found[0]} == {torch.bfloat16}
        assert {gradient.dtype for gradient in found[1]} == {torch.float32}
        pairs = zip(found[0] + found[1], truth[0] + truth[1], strict=True)
        return [((mine.float() - true).norm() / true.norm()).item() for mine, true in pairs]

    folded = errors(lambda x, weights: enlarged_convs(x, weights, size, form))
    plain = errors(lambda x, weights: plainly(x, weights, size))
    for mine, theirs in zip(folded, plain, strict=True):
        assert mine <= 2.5 * theirs + 1e-4


def test_many_channels_or_a_strong_enlargement_are_folded_and_wide_shallow_maps_are_not():
    def choose(channels, outputs, low, size, balance):
        features = torch.empty(8, channels, *low)
        weights = [torch.empty(outputs, channels, 5, 5)] * 2
        return cheapest_form(features, weights, size, balance)

    for balance in (60, 200):
        assert choose(2048, 16, (8, 10), (114, 152), balance) == "full"
        assert choose(512, 16, (29, 38), (114, 152), balance) == "full"
        assert choose(1024, 512, (8, 10), (15, 19), balance) == "full"
        assert choose(8, 64, (57, 76), (57, 76), balance) == "plain"
        assert choose(128, 64, (57, 76), (114, 152), balance) != "full"


@pytest.fixture
def block():
    torch.manual_seed(0)
    return UpProjection(24, 4)


def trained_step(block, features, size):
    block.zero_grad()
    output = block(features, size)
    (output**2).sum().backward()
    return output.detach(), [parameter.grad.clone() for parameter in block.parameters()]


def test_prediction_in_inference_mode_leaves_training_possible(block):
    features = torch.randn(2, 24, 5, 6)
    with torch.inference_mode():
        block(features, (10, 12))
    trained_step(block, features, (10, 12))
    assert torch.isfinite(block.conv1.weight.grad).all()


def test_compiled_it_does_the_same_at_several_sizes(block):
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    for low, size in [((5, 6), (10, 12)), ((4, 7), (7, 13))]:
        features = torch.randn(2, 24, *low)
        found, expected = (trained_step(form, features, size) for form in (compiled, block))
        for mine, theirs in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
            error = 1e-3 * theirs.abs().max().item()
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=error)
