"""The published pre-processing: Pillow's resize, whatever the size."""

import numpy as np
import pytest
from PIL import Image

from depthbal.adapters.age.images import ImageTransform


def stripes(height: int, width: int) -> np.ndarray:
    """Columns of black and white, a pixel wide: what aliases most."""
    columns = np.arange(width) % 2 * 255
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("picture", [stripes, noise])
@pytest.mark.parametrize("size", [(300, 300), (400, 410), (900, 300), (450, 450), (128, 90)])
def test_images_are_resized_as_pillow_does(picture, size):
    image = picture(*size)
    resized = ImageTransform(224)(image, seed=0).permute(1, 2, 0).double().numpy()
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs((resized + 1) * 127.5 - expected).max() < 1.01  # of 255: rounding alone


def test_a_picture_that_nobody_may_write_to_is_resized():
    image = noise(50, 40)
    image.flags.writeable = False
    assert ImageTransform(32)(image, seed=0).shape == (3, 32, 32)
