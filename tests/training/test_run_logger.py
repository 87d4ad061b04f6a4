from depthbal.training.run_logger import RunLogger, drop_rows_from


def test_a_second_logger_continues_the_file(tmp_path):
    first = RunLogger(tmp_path)
    first.log_metrics({"loss": 1.0}, step=0)
    first.save()
    second = RunLogger(tmp_path)
    second.log_metrics({"loss": 0.5, "score": 3.0}, step=1)
    second.save()
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "loss,score,step",
        "1.0,,0",
        "0.5,3.0,1",
    ]


def test_rows_of_a_cut_off_epoch_and_a_torn_last_row_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("loss,score,step\n1.0,,0\n0.9,2.0,1\n0.8,,2\n0.7,")
    drop_rows_from(path, 2)
    assert path.read_text().split() == ["loss,score,step", "1.0,,0", "0.9,2.0,1"]


def test_nothing_happens_without_a_file(tmp_path):
    drop_rows_from(tmp_path / "metrics.csv", 2)
    assert list(tmp_path.iterdir()) == []
