"""One HDF5 file instead of a hundred thousand image files: packed once, read by position."""
