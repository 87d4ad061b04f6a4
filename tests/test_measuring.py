"""What the benchmarks measure with."""

import torch
from measuring import peak_mib


def test_the_peak_is_what_a_run_makes_and_holds_at_once():
    def run():
        torch.zeros(2**19)  # 2 MiB, gone before the next
        first = torch.zeros(2**18)
        return first + torch.zeros(2**18)  # three of 1 MiB each at once

    assert peak_mib(run, "cpu") == 3


def test_what_was_there_before_does_not_count_when_it_is_freed():
    kept = []

    def replace():
        kept.clear()
        kept.append(torch.zeros(2**20))

    replace()
    assert [peak_mib(replace, "cpu") for _ in range(3)] == [4, 4, 4]
