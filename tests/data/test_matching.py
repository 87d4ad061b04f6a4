import pytest

from depthbal.data.matching import match_pairs
from depthbal.errors import DataError


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def match(root, rgb="rgb", depth="depth"):
    return match_pairs(root, rgb, depth, (".jpg", ".png"), (".png", ".npy"))


def test_folders_are_paired_by_the_path_inside_them_without_suffix(tmp_path):
    tree(tmp_path, "rgb/a/1.jpg", "rgb/b/1.PNG", "depth/b/1.npy", "depth/a/1.png", "rgb/notes.txt")
    assert match(tmp_path) == (
        [("rgb/a/1.jpg", "depth/a/1.png"), ("rgb/b/1.PNG", "depth/b/1.npy")],
        [],
    )


def test_names_with_dots_are_not_cut_short(tmp_path):
    tree(tmp_path, "rgb/1.50.jpg", "rgb/1.51.jpg", "depth/1.50.png", "depth/1.51.png")
    assert len(match(tmp_path)[0]) == 2


@pytest.mark.parametrize(
    ("rgb", "depth", "files", "pairs"),
    [
        (
            "*_colors.png",
            "*_depth.png",
            ["1_colors.png", "1_depth.png", "2_colors.png", "2_depth.png"],
            [("1_colors.png", "1_depth.png"), ("2_colors.png", "2_depth.png")],
        ),
        (
            "**/*_rgb.png",
            "**/*_d.png",
            ["s/1_rgb.png", "s/1_d.png", "t/u/1_rgb.png", "t/u/1_d.png", "1_rgb.png", "1_d.png"],
            [
                ("1_rgb.png", "1_d.png"),
                ("s/1_rgb.png", "s/1_d.png"),
                ("t/u/1_rgb.png", "t/u/1_d.png"),
            ],
        ),
        (
            "scenes/*/rgb/*.jpg",
            "scenes/*/depth/*.png",
            ["scenes/a/rgb/1.jpg", "scenes/a/depth/1.png", "scenes/b/rgb/1.jpg"],
            [("scenes/a/rgb/1.jpg", "scenes/a/depth/1.png")],
        ),
        (
            "color/*",
            "range/frame*",
            ["color/7.jpg", "range/frame7.npy"],
            [("color/7.jpg", "range/frame7.npy")],
        ),
    ],
)
def test_patterns_are_paired_by_what_their_wildcards_stand_for(tmp_path, rgb, depth, files, pairs):
    tree(tmp_path, *files)
    found, single = match(tmp_path, rgb, depth)
    assert sorted(found) == sorted(pairs)
    assert sorted([file for pair in found for file in pair] + single) == sorted(files)


def test_files_without_a_partner_are_listed(tmp_path):
    tree(tmp_path, "rgb/1.jpg", "rgb/2.jpg", "depth/1.png", "depth/3.png")
    assert match(tmp_path) == ([("rgb/1.jpg", "depth/1.png")], ["rgb/2.jpg", "depth/3.png"])


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="rgb is not a folder"):
        match(tmp_path)
    tree(tmp_path, "rgb/1.jpg", "depth/readme.txt")
    expected = r"no file matches 'depth' \(endings: \.png, \.npy\); give --data\.depth the folder"
    with pytest.raises(DataError, match=expected):
        match(tmp_path)


def test_a_wrong_folder_is_named_with_its_option_and_those_that_are_there(tmp_path):
    tree(tmp_path, "images/1.jpg", "depth/1.png", ".git/x")
    expected = (
        r"rgb is not a folder: rgb is 'rgb', .* are depth, images; give --data\.rgb the folder"
    )
    with pytest.raises(DataError, match=expected):
        match(tmp_path)


def test_names_that_never_agree_are_shown_side_by_side(tmp_path):
    tree(tmp_path, "rgb/1_colors.jpg", "depth/1_depth.png")
    with pytest.raises(DataError, match=r"no name in common .*1_colors\.jpg and depth/1_depth"):
        match(tmp_path)


def test_two_files_of_one_stem_are_refused(tmp_path):
    tree(tmp_path, "rgb/1.jpg", "rgb/1.png", "depth/1.png")
    with pytest.raises(DataError, match=r"rgb/1\.jpg and rgb/1\.png have the same stem"):
        match(tmp_path)
