from depthbal.reports.vocabulary import curve_name, digits_for, fixed, flat, jsonable, short


def test_numbers_are_text_with_a_true_minus_and_as_many_digits_as_say_something():
    assert [fixed(-1.2345, 2), fixed(0.5, 1, sign=True), fixed(None, 2)] == ["−1.23", "+0.5", "–"]
    assert fixed(-0.001, 2, sign=True) == "0.00"
    assert [digits_for(scale) for scale in (0.02, 0.3, 1.26, 7.1, 88.0, 0.0)] == [4, 3, 3, 2, 1, 3]
    assert [short(x) for x in (0.7999999999999999, 10.0, 25000000)] == ["0.8", "10", "25000000"]
    assert jsonable([1 / 3, float("nan"), 2.0]) == [0.3333333, None, 2]


def test_settings_and_curves_are_named_in_words():
    content = {"mask": {"seed": 0}, "edges": list(range(101)), "size": [72, 96], "none": None}
    expected = {"mask.seed": "0", "edges": "101 values, 0 to 100", "size": "72, 96", "none": "–"}
    assert flat(content) == expected
    names = ["val/rmse_bins", "train/loss_epoch", "val/own_error", "mine"]
    assert [curve_name(name) for name in names] == [
        "validation RMSE, mean over bins",
        "training loss, mean of the epoch",
        "validation own error",
        "mine",
    ]
