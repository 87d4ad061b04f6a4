"""A density picture takes nothing's place."""

import pytest

from depthbal.adapters.density import require_picture
from depthbal.errors import ConfigError


def test_a_picture_that_is_there_is_not_replaced(tmp_path):
    photo = tmp_path / "photo.png"
    require_picture(photo)
    photo.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"photo\.png exists; choose another name"):
        require_picture(photo)
