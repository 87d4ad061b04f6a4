"""The claim on which the product stands, on rooms small enough for a test."""

from tests.training.helpers import command, metrics_of

SMALL = [
    "--seed_everything=0",
    "--trainer.max_epochs=8",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--model.model.encoder=tu-test_resnet",  # a tenth of the config's time, the same claim
    "--model.model.arch_args.encoder_depth=4",
    "--model.model.arch_args.decoder_channels=[32,16,16,8]",
    "--data.size=[48,64]",
    "--data.n_train=256",
    "--data.n_val=8",
    "--data.n_test=160",
]


def test_gai_lowers_the_error_per_bin_and_few_shot_and_pays_little_for_it(tmp_path):
    rmse = {}
    for name in ("mse", "gai"):
        run = tmp_path / name
        assert command("train", "--config", f"rooms/{name}", "--out", run, *SMALL) == 0
        means = metrics_of(run)["all_pixels"]["per_bin_mean"]
        rmse[name] = {group: means[group]["rmse"] for group in ("overall", "many", "few")}
    assert rmse["gai"]["overall"] < 0.95 * rmse["mse"]["overall"]
    assert rmse["gai"]["few"] < 0.9 * rmse["mse"]["few"]
    assert rmse["gai"]["many"] < 1.4 * rmse["mse"]["many"]
