"""The claim of the drawn demonstration, in a small variant."""

import json

from tests.adapters.age.helpers import train_age

SMALL = ["--data.image_size=24", "--data.batch_size=64", "--trainer.max_epochs=1"]
SMALL += ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]


def test_gai_lowers_bmae_above_all_at_rare_ages_and_pays_little_at_common_ones(tmp_path):
    base = train_age(tmp_path / "vanilla", "--config", "age/drawn/vanilla", *SMALL)
    other = ["--config", "age/drawn/rrt_gai", f"--model.weights_from={base}"]
    run = train_age(tmp_path / "gai", *other, *SMALL)
    vanilla, gai = (json.loads((r / "metrics.json").read_text()) for r in (base, run))
    assert gai["overall"]["bmae"] < 0.88 * vanilla["overall"]["bmae"]
    assert gai["few"]["bmae"] < 0.8 * vanilla["few"]["bmae"]
    assert gai["many"]["mae"] < 1.3 * vanilla["many"]["mae"]
