import numpy as np
import pytest
import yaml

import depthbal
from depthbal.errors import ConfigError, RunFolderError
from depthbal.reports import load_results
from tests.reports.run_folders import add_examples, change_json, change_npz, depths, make_run


def test_a_run_gives_its_own_result_and_those_balanced_afterwards(tmp_path):
    run = make_run(tmp_path / "mse", posthoc=(10.0, 0.5))
    results = load_results([run])
    assert [result.name for result in results] == [
        "mse",
        "mse, balanced afterwards (sigma 0.5)",
        "mse, balanced afterwards (sigma 10)",
    ]
    assert [result.noise_sigma for result in results] == [None, 0.5, 10.0]
    assert [result.posthoc for result in results] == [False, True, True]
    assert len({result.method for result in results}) == 3


def test_a_result_holds_what_the_files_say(tmp_path):
    run = make_run(tmp_path / "gai", sigma=0.75, seed=4, interval=True)
    add_examples(run)
    (result,) = load_results([run])
    with np.load(run / "per_image.npz") as file:
        assert np.array_equal(result.sums["mask", "raw"], file["sums_mask_raw"])
        assert np.array_equal(result.sums["all", "clamped"], file["sums_all"])
        assert np.array_equal(result.joint["all", "raw"], file["joint_all_raw"])
        assert np.array_equal(result.coverage["mask"], file["coverage_mask"])
        assert np.array_equal(result.counts, file["sums_all"][..., 0])
    assert result.subsets == ("mask", "all")
    assert result.headline == "mask"
    assert result.readouts == ("clamped", "raw")
    assert (result.label.name, result.label.unit, result.main_metric) == ("depth", "m", "rmse")
    assert (result.seed, result.noise_sigma) == (4, 0.75)
    assert result.curves["train/loss_step"][1].tolist() == [1.5, 0.5]
    assert result.curves["val/rmse"][0].tolist() == [9.0]  # the NaN is left out
    assert result.histogram.total == 55
    assert result.prior.means.tolist() == [2.0, 5.0]
    assert [example.reason for example in result.examples] == ["best", "worst", "rare"]
    assert result.examples[0].image.shape == (6, 8, 3)
    assert result.names[3] == "test/3"
    assert result.gaps == ()


def test_what_an_earlier_version_did_not_write_is_a_gap(tmp_path):
    run = make_run(tmp_path / "old")
    joint = {f"joint_{s}{r}": None for s in ("mask", "all") for r in ("", "_raw")}
    change_npz(run / "per_image.npz", groups=None, label_name=None, label_unit=None, **joint)
    change_json(run / "metrics.json", lambda m: (m.pop("calibration"), m["protocol"].pop("label")))
    for name in ("metrics.csv", "histogram.json", "versions.json", "config.yaml"):
        (run / name).unlink()
    (result,) = load_results([run])
    text = "; ".join(result.gaps)
    for words in ("joint", "coverage", "scenes", "examples", "metrics.csv", "histogram", "config"):
        assert words in text
    assert result.groups == ("",) * 40
    assert result.seed is None
    assert result.joint == {}


@pytest.mark.parametrize("name", ["histogram.json", "metrics.csv", "versions.json", "config.yaml"])
def test_a_damaged_file_that_no_number_needs_is_a_gap(tmp_path, name):
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(b"\x00[{: \xff")
    (result,) = load_results([run])
    assert any(gap.startswith("no ") for gap in result.gaps)


def test_damaged_examples_are_a_gap(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "examples.npz").write_bytes(b"PK\x03\x04 cut off")
    (result,) = load_results([run])
    assert result.examples == ()
    assert "no example images" in result.gaps[-1]


def test_a_folder_without_metrics_says_how_to_get_them(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(RunFolderError, match=r"run is incomplete.*tools/evaluate\.py .*run"):
        load_results([run])
    with pytest.raises(RunFolderError, match="--checkpoint best"):
        load_results([run], checkpoint="best")
    with pytest.raises(RunFolderError, match="there is no run folder"):
        load_results([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load_results([tmp_path / "empty"])


def test_the_best_checkpoints_evaluation_is_another_file(tmp_path):
    run = make_run(tmp_path / "run", posthoc=(1.0,))
    for kind, end in (("metrics", ".json"), ("per_image", ".npz")):
        (run / f"{kind}{end}").rename(run / f"{kind}_best{end}")
        (run / f"{kind}_posthoc_1{end}").rename(run / f"{kind}_best_posthoc_1{end}")
    results = load_results([run], checkpoint="best")
    assert [result.file.name for result in results] == [
        "metrics_best.json",
        "metrics_best_posthoc_1.json",
    ]


def test_nan_in_the_metrics_is_refused_with_the_file(tmp_path):
    run = make_run(tmp_path / "run")
    change_json(run / "metrics.json", lambda m: m["overall"].update(rmse=float("nan")))
    with pytest.raises(RunFolderError, match=r"metrics\.json holds NaN"):
        load_results([run])


def test_nan_in_the_sums_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    with np.load(run / "per_image.npz") as file:
        sums = file["sums_all"].copy()
    sums[3, 2, 1] = np.nan
    change_npz(run / "per_image.npz", sums_all=sums)
    with pytest.raises(RunFolderError, match="sums_all holds values that are not finite"):
        load_results([run])


def test_sums_of_another_evaluation_are_refused(tmp_path):
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other", bias=0.2)
    (run / "per_image.npz").write_bytes((other / "per_image.npz").read_bytes())
    with pytest.raises(RunFolderError, match=r"per_image\.npz does not belong to metrics\.json"):
        load_results([run])


@pytest.mark.parametrize("scale", [0.7, 1.1, 1.3])
def test_predictions_of_one_ratio_are_no_other_evaluation(tmp_path, scale):
    # their SILog is 0 but for rounding
    run = make_run(tmp_path / "run", preds=depths() * scale)
    (result,) = load_results([run])
    assert result.metrics["readout"]["raw"]["overall"]["silog"] < 1e-4


def test_a_changed_number_of_one_shot_is_noticed(tmp_path):
    run = make_run(tmp_path / "run")
    change_json(run / "metrics.json", lambda m: m["all_pixels"]["few"].update(mae=0.5))
    with pytest.raises(RunFolderError, match="few"):
        load_results([run])


def test_a_changed_mean_over_bins_is_noticed(tmp_path):
    run = make_run(tmp_path / "run")
    change_json(
        run / "metrics.json", lambda m: m["all_pixels"]["per_bin_mean"]["few"].update(rmse=9.0)
    )
    with pytest.raises(RunFolderError, match=r"other numbers for few \(all clamped\)"):
        load_results([run])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["overall"].update(rmse=0.5), r"overall \(mask clamped\)"),
        (lambda m: m["overall"].update(rmse=None), r"overall \(mask clamped\)"),
        (lambda m: m["overall"].update(rmse="0.5"), r"overall \(mask clamped\)"),
        (lambda m: m["per_bin_mean"]["few"].update(mae=0.5), r"few \(mask clamped\)"),
        (lambda m: m["readout"]["raw"]["all_pixels"]["many"].update(mae=0.5), r"many \(all raw\)"),
        (lambda m: m["bins"][3].update(bias=0.5), "bin 3"),
        (lambda m: m["bins"][3].update(bin=500), "none of them bin 500"),
        (lambda m: m["calibration"]["all"]["few"].update(coverage=0.99), r"cover other.*\(all\)"),
        (lambda m: m["protocol"]["bins"]["edges"].reverse(), "its edges are others"),
        (lambda m: m["protocol"].update(readout="raw"), "its main read-out is 'clamped'"),
    ],
)
def test_every_number_of_the_metrics_follows_from_the_tables_beside_them(tmp_path, change, message):
    run = make_run(tmp_path / "run", interval=True)
    change_json(run / "metrics.json", change)
    with pytest.raises(RunFolderError, match=f"does not belong to metrics.json: .*{message}"):
        load_results([run])


def test_a_joint_histogram_of_other_truths_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    with np.load(run / "per_image.npz") as file:
        joint = file["joint_all_raw"][::-1]
    change_npz(run / "per_image.npz", joint_all_raw=joint)
    with pytest.raises(RunFolderError, match=r"counts other truths \(all raw\)"):
        load_results([run])


def test_versions_in_another_form_are_a_gap(tmp_path):
    run = make_run(tmp_path / "run")
    change_json(run / "versions.json", lambda v: v.update(data="x"))
    (result,) = load_results([run])
    assert any("training data in another form" in gap for gap in result.gaps)


def test_a_lack_under_the_same_version_is_damage(tmp_path):
    run = make_run(tmp_path / "run")
    change_json(run / "versions.json", lambda v: v.update(depthbal=depthbal.__version__))
    change_json(run / "metrics.json", lambda m: m.pop("medium"))
    with pytest.raises(RunFolderError, match="lacks medium: it is damaged; evaluate"):
        load_results([run])


def test_a_shot_without_pixels_belongs_to_its_metrics(tmp_path):
    run = make_run(tmp_path / "run", target=depths().clamp(max=2.9))
    (result,) = load_results([run])
    assert result.metrics["all_pixels"]["per_bin_mean"]["few"]["rmse"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("per_bin_mean"), "lacks per_bin_mean"),
        (lambda m: m["all_pixels"].pop("per_bin_mean"), r"lacks all_pixels\.per_bin_mean"),
        (lambda m: m["readout"]["raw"].pop("overall"), r"lacks readout\.raw\.overall"),
        (lambda m: m.update(calibration=[1]), "has calibration in another form"),
        (lambda m: m["protocol"].update(label="depth"), r"has protocol\.label in another form"),
        (lambda m: m["protocol"].update(mask="drawn"), r"has protocol\.mask in another form"),
        (lambda m: m["protocol"].update(posthoc=1.0), r"has protocol\.posthoc in another form"),
        (lambda m: m["protocol"]["bins"].pop("edges"), r"lacks protocol\.bins\.edges"),
        (lambda m: m["protocol"]["label"].pop("unit"), r"lacks protocol\.label\.unit"),
        (lambda m: m["protocol"].update(posthoc={"noise_sigma": "1"}), r"posthoc\.noise_sigma in"),
        (lambda m: m["protocol"].update(main_metric="foo"), r"main_metric 'foo'"),
        (lambda m: m["calibration"].pop("level"), r"lacks calibration\.level"),
        (lambda m: m["calibration"]["all"]["few"].pop("coverage"), r"all\.few\.coverage"),
        (lambda m: m["bins"][0].pop("bin"), r"lacks bins\.bin"),
    ],
)
def test_metrics_in_another_form_are_refused_by_what_they_lack(tmp_path, change, message):
    run = make_run(tmp_path / "run", interval=True)
    change_json(run / "metrics.json", change)
    with pytest.raises(RunFolderError, match=message):
        load_results([run])


def test_parts_of_a_protocol_that_are_null_are_as_if_missing(tmp_path):
    run = make_run(tmp_path / "run")
    nothing = dict.fromkeys(("bins", "data", "label", "posthoc"))
    change_json(run / "metrics.json", lambda m: m["protocol"].update(nothing))
    (result,) = load_results([run])
    assert result.label == ("depth", "m")
    assert not result.posthoc


@pytest.mark.parametrize(("name", "shape"), [("joint_all", (10, 10)), ("coverage_mask", (9, 2))])
def test_tables_of_other_bins_are_refused(tmp_path, name, shape):
    run = make_run(tmp_path / "run", interval=True)
    change_npz(run / "per_image.npz", **{name: np.ones(shape, dtype=np.int64)})
    with pytest.raises(RunFolderError, match=f"has {name} of shape"):
        load_results([run])


def test_examples_of_unequal_sizes_are_a_gap(tmp_path):
    run = make_run(tmp_path / "run")
    add_examples(run)
    change_npz(run / "examples.npz", truth_01=np.ones((6, 7), dtype=np.float32))
    (result,) = load_results([run])
    assert result.examples == ()
    assert "image, truth and prediction 1 differ in size" in result.gaps[-1]


@pytest.mark.parametrize("cut", [0, 100, 4000])
def test_a_damaged_npz_is_refused_with_its_name(tmp_path, cut):
    run = make_run(tmp_path / "run")
    content = (run / "per_image.npz").read_bytes()
    (run / "per_image.npz").write_bytes(content[:cut])
    with pytest.raises(RunFolderError, match=r"per_image\.npz is damaged"):
        load_results([run])
    (run / "per_image.npz").unlink()
    with pytest.raises(RunFolderError, match=r"per_image\.npz is missing"):
        load_results([run])


def test_pickled_arrays_are_never_opened(tmp_path):
    run = make_run(tmp_path / "run")
    change_npz(run / "per_image.npz", names=np.array([{"a": 1}] * 40, dtype=object))
    with pytest.raises(RunFolderError, match="damaged"):
        load_results([run])


def test_damaged_json_is_refused_with_its_name(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "metrics.json").write_text('{"protocol": {')
    with pytest.raises(RunFolderError, match=r"metrics\.json cannot be read"):
        load_results([run])


def test_another_format_names_both_versions(tmp_path):
    run = make_run(tmp_path / "run")
    change_json(run / "versions.json", lambda v: v.update(depthbal="7.0.0"))
    change_npz(run / "per_image.npz", sums_all=None)
    with pytest.raises(RunFolderError, match=r"lacks sums_all.*the run: 7\.0\.0, this is 0"):
        load_results([run])
    change_json(run / "metrics.json", lambda m: m.pop("medium"))
    with pytest.raises(RunFolderError, match=r"lacks medium.*another version"):
        load_results([run])


def test_balancing_an_earlier_epoch_afterwards_is_left_out_and_said(tmp_path):
    run = make_run(tmp_path / "run", posthoc=(1.0,))
    change_json(run / "metrics.json", lambda m: m["protocol"].update(epochs=9))
    (result,) = load_results([run])
    assert "metrics_posthoc_1.json is left out" in result.gaps[-1]


def test_names_that_clash_are_told_apart_and_a_run_is_named_once(tmp_path):
    runs = [make_run(tmp_path / parent / "gai") for parent in ("a", "b")]
    assert [result.name for result in load_results(runs)] == ["a/gai", "b/gai"]
    with pytest.raises(ConfigError, match="named twice"):
        load_results([runs[0], runs[0] / ".." / "gai"])
    with pytest.raises(ConfigError, match="one or more"):
        load_results([])


def test_repetitions_share_their_method_and_other_settings_do_not(tmp_path):
    kinds = {"s0": {"seed": 0}, "s1": {"seed": 1}, "lr": {"lr": 0.5}, "gai": {"sigma": 1.0}}
    runs = [make_run(tmp_path / name, **kind) for name, kind in kinds.items()]
    first, second, *others = load_results(runs)
    assert first.method == second.method
    assert (first.seed, second.seed) == (0, 1)
    assert len({first.method, *(other.method for other in others)}) == 3


def test_repetitions_that_start_from_other_repetitions_are_one_method(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"base-{seed}", seed=seed)
    make_run(tmp_path / "base-other", seed=2, lr=0.7)
    runs = []
    for seed, base in enumerate(("base-0", "base-1", "base-other")):
        run = make_run(tmp_path / f"head-{seed}", seed=seed)
        settings = yaml.safe_load((run / "config.yaml").read_text())
        settings["model"]["base_run"] = str(tmp_path / base)
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
        runs.append(run)
    first, second, other = load_results(runs)
    assert first.method == second.method
    assert first.method != other.method
    assert str(tmp_path / "base-0") in first.config
