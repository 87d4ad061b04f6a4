import pytest

from depthbal.io import replacing, write_json


def write_half(target, interruption):
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt"
        assert target.read_text() == "previous"
        raise interruption


def test_a_write_that_fails_half_way_leaves_the_previous_file_and_no_rest(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("previous")
    for interruption in (KeyboardInterrupt, OSError):
        with pytest.raises(interruption):
            write_half(target, interruption)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("note.txt", "previous")
    ]


def test_what_is_written_is_as_readable_as_any_other_file(tmp_path):
    (tmp_path / "plain").touch()
    write_json(tmp_path / "folder" / "new.json", {})
    expected = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "folder" / "new.json").stat().st_mode == expected
