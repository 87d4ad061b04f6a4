"""Reading, writing and resizing of images and depth maps with OpenCV."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import BadZipFile

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV reads no EXR unless asked to

import cv2
import h5py
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from depthbal.errors import ConfigError, DataError
from depthbal.io import replacing

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of every GeoTIFF's tags
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".ppm")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
_ARRAYS = (".npy", ".npz", ".h5", ".hdf5")
DEPTH_SUFFIXES = (".png", *_ARRAYS, ".tif", ".tiff", ".pfm", ".exr", ".pgm")
MILLIMETRE = 0.001
PNG_SCALE = "depthbal:scale"
"""The text of our 16-bit PNGs that says the label units per step, such as "0.002 m"."""

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]
PathLike = str | os.PathLike[str]
Scale = float | Mapping[str, float] | None
"""Metres per unit of a depth file, or that of each type of number; None for `CONVENTIONS`."""
CONVENTIONS = {"float16": 1.0, "float32": 1.0, "float64": 1.0} | dict.fromkeys(
    ("int16", "uint16", "int32", "uint32", "int64", "uint64"), MILLIMETRE
)

Array = TypeVar("Array", bound=NDArray[Any])

# Every complete file of these formats carries this mark near its end; decoders fill a truncated
# JPEG with grey and report success.
_END_MARKS, _TAIL = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}, 65536
_EXIF = re.compile(rb"(?:Exif\0\0|eXIf|EXIF.{4})(?=II\*\0|MM\0\*)", re.DOTALL)
_HEAD = 8192  # bytes in which it begins
_SPARSE = 0.25  # of a map's pixels, below which those with depth seldom have neighbours
_SAME_ASPECT = 0.005  # of two sensors that see the same; a benchmark's crop differs by more


def read_image(path: PathLike) -> Image:
    """Read an image file as uint8 (H, W, 3) RGB, turned upright by its EXIF tag."""
    mode = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _decode(path, mode)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{path}: a picture of {pixels.dtype} has no white; convert it to PNG or JPEG"
        )
    tiff = Path(path).suffix.lower() in (".tif", ".tiff")  # which OpenCV turns itself
    return turned(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), 1 if tiff else orientation(path))


def orientation(path: PathLike) -> int:
    """Return a picture's EXIF orientation, 1 (as stored) to 8."""
    exif = PIL.Image.Exif()
    with suppress(OSError), Path(path).open("rb") as file:
        head = file.read(_TAIL)
        if found := _EXIF.search(head, 0, _HEAD):
            exif.load(head[found.end() :])
        elif head[:4] in (b"II*\0", b"MM\0*"):  # TIFF
            exif = PIL.Image.open(file).getexif()
    code = exif.get(274, 1)  # the tag's number
    return code if code in range(1, 9) else 1


def turned(array: Array, code: int) -> Array:
    """Turn an image or depth map as an EXIF orientation says."""
    array = array.swapaxes(0, 1) if code > 4 else array
    down, left = (-1 if code in codes else 1 for codes in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return cast(Array, np.ascontiguousarray(array[::down, ::left]))


def read_raw_depth(path: PathLike) -> NDArray[Any]:
    """Read a depth file as stored, (H, W): an image with one channel, or a file of arrays.

    Of several equal channels one is taken, of several arrays the one called "depth".
    """
    suffix = Path(path).suffix.lower()
    readers = {".exr": _read_exr, ".pfm": _read_pfm} | dict.fromkeys(_ARRAYS, read_array)
    raw = readers.get(suffix, _decode)(path)
    while raw.ndim > 2 and 1 in (raw.shape[0], raw.shape[-1]):
        raw = raw[..., 0] if raw.shape[-1] == 1 else raw[0]
    if raw.ndim == 3 and raw.shape[2] in (3, 4):  # the fourth is alpha
        first, *others = (raw[..., channel] for channel in range(3))
        if all(np.array_equal(first, other, equal_nan=True) for other in others):
            raw = first
    if raw.ndim != 2:
        raise DataError(
            f"{path}: expected depth with one channel, got shape {raw.shape}; "
            "colour-coded depth cannot be read back as metres: convert it to 16-bit PNG or npy"
        )
    return raw


def read_array(path: PathLike) -> NDArray[Any]:
    """Return the only array of a file, of .npy mapped into memory, or the one called "depth"."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path) if suffix == ".npz" else h5py.File(path) as arrays:
                names = list(arrays) if suffix == ".npz" else _arrays_in(arrays)
                named = [name for name in names if name.rpartition("/")[2].lower() == "depth"]
                if 1 not in (len(names), len(named)):
                    shown = ", ".join(names)
                    raise DataError(f'{path}: expected one array, or one called "depth": {shown}')
                array = arrays[(names if len(names) == 1 else named)[0]][()]
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{array.dtype} is no real number")
    except (OSError, ValueError, EOFError, BadZipFile, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable {suffix} file ({error})") from error
    return cast(NDArray[Any], array)


def _arrays_in(file: h5py.File) -> list[str]:
    """Return the paths of all arrays of an HDF5 file, those inside groups too."""
    names: list[str] = []
    file.visititems(lambda name, one: names.append(name) if hasattr(one, "dtype") else None)
    return names


def _read_pfm(path: PathLike) -> NDArray[Any]:
    """Return a PFM file's numbers as they are stored; OpenCV divides by the scale in its header."""
    try:
        content = Path(path).read_bytes()
        found = re.match(rb"(P[fF])\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", content)
        if found is None:
            raise ValueError("it does not begin with Pf, its size and its scale")
        kind, width, height, scale = found.groups()
        dtype = np.dtype("<f4" if float(scale) < 0 else ">f4")  # all that the scale says
        shape = int(height), int(width), 3 if kind == b"PF" else 1
        numbers = np.frombuffer(content, dtype, math.prod(shape), found.end())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable .pfm file ({error})") from error
    return numbers.reshape(shape)[::-1].astype(np.float32)


def _read_exr(path: PathLike) -> NDArray[Any]:
    """Return the channel Z, V or Y of an EXR file, that of a layer called depth first, or all."""
    try:
        import OpenEXR
    except ImportError:  # OpenCV reads Y and colours, and zeros in the place of all else
        raw = _decode(path)
        if raw.any():
            return raw
        raise DataError(f"{path}: pip install OpenEXR to read a file of these channels") from None
    try:
        channels = OpenEXR.File(str(path), separate_channels=True).channels()
    except Exception as error:  # whatever its C++ says
        raise DataError(f"{path}: not a readable .exr file ({error})") from error
    names = [name for name in channels if name.rpartition(".")[2] in ("Z", "V", "Y")]
    names = sorted(names, key=lambda name: "depth" not in name.lower())[:1] or list(channels)
    return np.dstack([channels[name].pixels for name in names])


def read_depth(path: PathLike, scale: Scale = None) -> Depth:
    """Read a depth file as float32 (H, W) in metres; every value is kept."""
    raw = read_raw_depth(path)
    return to_metres(raw, metres_per_unit(scale, raw.dtype, path))


def nodata_of(path: PathLike) -> tuple[float, ...]:
    """Return the value that a GeoTIFF's tag GDAL_NODATA says is none; nothing where it has none."""
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        return ()
    with PIL.Image.open(path) as file:
        text = str(file.getexif().get(42113, "")).strip("\0 ")  # the tag's number
    try:
        return (float(text),) if text else ()
    except ValueError as error:
        raise DataError(f"{path}: its tag GDAL_NODATA is {text!r}, expected a number") from error


def to_metres(raw: NDArray[Any], scale: float) -> Depth:
    """Convert stored depth to float32 metres."""
    # in double precision, so that 700 mm is the float32 next to 0.7 and not the one after it
    return (raw if scale == 1 else np.multiply(raw, scale, dtype=np.float64)).astype(np.float32)


def metres_per_unit(scale: Scale, dtype: np.dtype[Any], path: PathLike) -> float:
    """Return the scale of a type of number; one of an unknown unit is a `DataError`."""
    if isinstance(scale, float | int):
        return scale
    known = CONVENTIONS if scale is None else scale
    if scale is None and dtype == np.uint16 and Path(path).suffix.lower() == ".png":
        with PIL.Image.open(path) as file:  # one of ours that millimetres could not hold
            return float(file.info.get(PNG_SCALE, f"{MILLIMETRE}").split()[0])
    if dtype.name not in known:
        raise DataError(
            f"{path}: depth is stored as {dtype}, which says nothing about its unit; set scale to "
            "the metres per unit, for example 0.0392157 = 10 / 255 for 8 bit up to 10 m"
        )
    return known[dtype.name]


def as_scale(given: float | str | None) -> float | None:
    """Return a scale, which may be written as a fraction such as 1/256."""
    try:
        return None if given is None else float(Fraction(str(given).replace(" ", "")))
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"expected a scale such as 0.001 or 1/256, got {given!r}") from error


def only_depth(
    depth: Depth,
    limit: float = float(np.finfo(np.float32).max),
    beyond: float | None = None,
    none: float = 0.0,
) -> Depth:
    """Return a map without what is no depth: NaN, infinity, negative, beyond a limit.

    What is beyond the limit and at least ``beyond`` becomes inf: known to be there. With `none`
    NaN, 0 and what is negative are labels, and NaN is what is none.
    """
    least = 0.0 if none == 0 else -float(np.finfo(np.float32).max)
    if depth.min() >= least and depth.max() <= limit:  # NaN is neither
        return depth
    found = np.where((depth >= least) & (depth <= limit), depth, np.float32(none))
    if beyond is not None:
        found[(depth > limit) & (depth >= beyond)] = np.inf
    return found


def measured(depth: NDArray[Any], none: float = 0.0) -> NDArray[np.bool_]:
    """Return where a map has a label: neither `none`, 0 or NaN, nor beyond the range, inf."""
    return np.isfinite(depth) if none != 0 else (depth > 0) & (depth < np.inf)


def fitted(image: Image, size: tuple[int, ...]) -> Image:
    """Resize an image to its depth map's (height, width), where both have the same aspect."""
    height, width = image.shape[:2]
    if (height, width) == size or abs(height / width * size[1] / size[0] - 1) > max(
        _SAME_ASPECT, 1.5 / min(size)
    ):
        return image
    method = cv2.INTER_AREA if height > size[0] else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(image, size[::-1], interpolation=method))


def write_depth(
    path: PathLike, depth: NDArray[np.floating[Any]], top: float = 0.0, unit: str = "m"
) -> float:
    """Write depth as 16-bit PNG, or as float32 TIFF or npy, and return the units per step.

    A PNG holds round(depth / scale) with 0 where depth is not positive or not finite. The scale is
    the smallest whole number of thousandths of a unit with which 65,535 steps reach the largest
    value and `top`: millimetres up to 65.535 m. It is in the file's text "depthbal:scale", by which
    `read_depth` goes. TIFF and npy keep every value as it is; their scale is 1.

    Args:
        path: with the suffix .png, .tif, .tiff or .npy.
        depth: (H, W), metres or another label's units.
        top: a value that the scale must hold too, so that a set of maps has one scale.
        unit: of the values, for the file's text.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> write_depth(folder / "far.png", np.array([[0.5, 80.0]]))
        0.002
        >>> read_depth(folder / "far.png").tolist()
        [[0.5, 80.0]]
    """
    suffix, scale = Path(path).suffix.lower(), 1.0
    with replacing(path) as temporary:
        if suffix == ".npy":
            np.save(temporary, depth.astype(np.float32))
        elif suffix in (".tif", ".tiff"):
            PIL.Image.fromarray(depth.astype(np.float32)).save(temporary)
        else:
            values = np.nan_to_num(depth.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
            steps = max(1, math.ceil(max(top, values.max()) / (65535 * MILLIMETRE)))
            scale = steps / 1000
            text = PngInfo()
            text.add_text(PNG_SCALE, f"{scale:.10g} {unit}")
            stored = np.rint(values.clip(min=0) / scale).astype(np.uint16)
            PIL.Image.fromarray(stored).save(temporary, pnginfo=text)
    return scale


def write_ply(
    path: PathLike,
    depth: NDArray[np.floating[Any]],
    image: Image,
    intrinsics: tuple[float, float, float, float],
) -> int:
    """Write the pixels with depth as a coloured point cloud, and return how many they are.

        x = (column - cx) z / fx,   y = (row - cy) z / fy,   z = depth along the optical axis

    in metres, x to the right, y down, z forward, as OpenCV and Open3D have it; the centre of the
    upper left pixel is at column 0 and row 0. The file is a PLY, binary little endian: float32 x,
    y, z, uint8 red, green, blue. Depth that is not positive or not finite gives no point.

    Args:
        path: of the file.
        depth: (H, W), metres.
        image: uint8 (H, W, 3) RGB of the same size.
        intrinsics: fx, fy, cx, cy in pixels of this image; see `intrinsics_of_fov`.

    Raises:
        DataError: the principal point lies outside the image: the intrinsics are another size's.

    Example:
        >>> depth, grey = np.full((2, 4), 3.0), np.full((2, 4, 3), 99, np.uint8)
        >>> camera = intrinsics_of_fov(90.0, depth.shape)
        >>> write_ply(getfixture("tmp_path") / "wall.ply", depth, grey, camera)
        8
    """
    fx, fy, cx, cy = intrinsics
    height, width = depth.shape
    if not (0 <= cx < width and 0 <= cy < height):
        raise DataError(
            f"{path}: the principal point ({cx:g}, {cy:g}) lies outside the picture of {width} x "
            f"{height} pixels; give the intrinsics of this size"
        )
    rows, columns = np.nonzero((depth > 0) & np.isfinite(depth))
    z = depth[rows, columns]
    points = np.empty(len(z), [(axis, "<f4") for axis in "xyz"] + [("rgb", "u1", 3)])
    points["x"], points["y"], points["z"] = (columns - cx) * z / fx, (rows - cy) * z / fy, z
    points["rgb"] = image[rows, columns]
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(z)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    with replacing(path) as temporary:
        temporary.write_bytes(f"{header}end_header\n".encode() + points.tobytes())
    return len(z)


def intrinsics_of_fov(degrees: float, size: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy of a horizontal field of view and square pixels; size: (H, W, ...)."""
    focal = size[1] / 2 / math.tan(math.radians(degrees) / 2)
    return focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2


def is_video(path: PathLike) -> bool:
    """Whether a file's name ends as those of videos do."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def video_facts(path: PathLike) -> tuple[float, int]:
    """Return a video's frames per second, and how many frames its header promises."""
    video = cv2.VideoCapture(str(path))
    return video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT))


def read_video(path: PathLike) -> Iterator[Image]:
    """Read the frames of a video one by one, uint8 (H, W, 3) RGB, turned upright by its tag."""
    video = cv2.VideoCapture(str(path))
    found, frame = video.read()
    if not found:
        raise DataError(f"{path}: no frame can be read; is it whole, and a video? try an .mp4")
    while found:
        yield cast(Image, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        found, frame = video.read()


def normalise(
    image: Image, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Return an RGB image (H, W, 3) as float32 (3, H, W), shifted and scaled channel by channel."""
    centre, spread = np.asarray(mean), np.asarray(std)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    pixels *= (1 / (255 * spread)).astype(np.float32)[:, None, None]  # in place: half the time
    pixels -= (centre / spread).astype(np.float32)[:, None, None]
    return torch.from_numpy(pixels)


def resize_short_side(
    array: Array, short_side: int | None, nearest: bool, none: float = 0.0
) -> Array:
    """Resize an image or, with ``nearest=True``, a depth map to a shorter side; None keeps it."""
    height, width = array.shape[:2]
    short = min(height, width)
    if short_side is None or short == short_side:
        return array
    new_height, new_width = (round(extent * short_side / short) for extent in (height, width))
    if nearest:
        return resize_depth(array, (new_height, new_width), none)
    # two samples per pixel would alias where an image shrinks to less than half
    method = cv2.INTER_AREA if short > 2 * short_side else cv2.INTER_LINEAR
    return cast(Array, cv2.resize(array, (new_width, new_height), interpolation=method))


def resize_depth(depth: Array, size: tuple[int, ...], none: float = 0.0) -> Array:
    """Resize a depth map to (height, width) by its nearest pixels.

    Any mixture of two depths lies in empty space between two surfaces. Where few pixels have depth,
    as those that a lidar hit, a smaller map gets all of them, each where it falls, and of several
    the nearest: one pixel in four of half the size would lose three of four.
    """
    if depth.shape == size:
        return depth
    # the "exact" variant samples at pixel centres; plain INTER_NEAREST shifts the map
    resized: Any = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    known = measured(depth, none)
    if math.prod(size) >= depth.size or np.count_nonzero(known) >= _SPARSE * depth.size:
        return cast(Array, resized)
    places = np.flatnonzero(known)
    rows, columns = np.divmod(places, depth.shape[1])
    rows, columns = rows * size[0] // depth.shape[0], columns * size[1] // depth.shape[1]
    nearest = np.full(size, np.inf, np.float32)
    np.minimum.at(nearest.ravel(), rows * size[1] + columns, depth.ravel()[places])
    holes = nearest == np.inf
    # what lies beyond is no hole
    nearest[holes] = np.where(resized[holes] == np.inf, np.inf, np.float32(none))
    return cast(Array, nearest.astype(depth.dtype, copy=False))


def resize_square(image: Image, size: int) -> Image:
    """Resize an image to size x size pixels by Pillow's bilinear filter, which averages."""
    if image.shape[:2] == (size, size):
        return image
    batch = torch.tensor(image).permute(2, 0, 1)[None]
    resized = nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _decode(path: PathLike, mode: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    mark = _END_MARKS.get(content[:2], b"")
    if content.rfind(mark, max(0, len(content) - _TAIL)) < 0:
        raise DataError(f"{path}: the file is truncated at {len(content)} bytes; fetch it again")
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), mode) if content else None
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "not enough memory")
        raise DataError(
            f"{path}: OpenCV cannot decode it ({reason}); shrink it, convert it with another "
            "program, or for over 2^30 pixels set OPENCV_IO_MAX_IMAGE_PIXELS in the environment"
        ) from error
    if decoded is None:
        raise DataError(f"{path}: not a readable image; replace the file, or leave it out")
    return cast(NDArray[Any], decoded)
