"""Aerial tiles drawn in milliseconds: roofs on flat ground, with heights as GeoTIFF."""

import cv2
import numpy as np
import PIL.Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

NODATA = -9999.0


def tile(number: int, size: int = 32):
    """Return image uint8 (h, w, 3) and height float32 (h, w) metres, NODATA in one corner."""
    random = np.random.default_rng(number)
    height = np.zeros((size, size), np.float32)
    for _ in range(3):
        row, column = random.integers(0, size - 10, 2)
        rows, columns = random.integers(5, 10, 2)
        height[row : row + rows, column : column + columns] = np.round(random.uniform(3, 30), 2)
    image = np.repeat((40 + 6 * height).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    height[:4, :4] = NODATA
    height[-1, -1] = np.nan
    return image, height


def write_geotiff(path, array, nodata: str | None = None):
    """Write one band by Pillow, with the tag that GDAL writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = ImageFileDirectory_v2()
    if nodata is not None:
        tags[42113] = nodata
    PIL.Image.fromarray(array).save(path, tiffinfo=tags)


def write_heights(root, count: int = 12):
    """Write ROOT/rgb/TILE.png and ROOT/height/TILE.tif; return ROOT."""
    (root / "rgb").mkdir(parents=True)
    for number in range(count):
        image, height = tile(number)
        cv2.imwrite(str(root / "rgb" / f"{number:02d}.png"), image)
        write_geotiff(root / "height" / f"{number:02d}.tif", height, f"{NODATA:g}")
    return root
