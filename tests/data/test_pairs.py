import pytest

from depthbal.data import PairSource, PairSubset
from tests.data.make_files import array_source


def test_a_subset_delivers_the_chosen_pairs_in_the_given_order():
    source = array_source(5)
    subset = PairSubset(source, [3, 1])
    assert len(subset) == 2
    assert [subset.name(i) for i in range(2)] == ["array 3", "array 1"]
    assert subset.load(0)[1] is source.pairs[3][1]
    assert subset.load_depth(1) is source.pairs[1][1]


def test_the_fingerprint_of_a_subset_depends_on_the_choice_and_its_order():
    source = array_source(3)
    prints = {
        PairSubset(source, chosen).fingerprint() for chosen in ([0, 1], [1, 0], [0, 2], [0, 1, 2])
    }
    assert len(prints) == 4
    assert PairSubset(source, [0, 1]).fingerprint() in prints


@pytest.mark.parametrize("index", [-1, 3])
def test_a_subset_refuses_positions_outside_its_source(index):
    with pytest.raises(IndexError, match=f"index {index} lies outside the source of 3 pairs"):
        PairSubset(array_source(3), [0, index])


def test_depth_alone_is_used_where_a_source_offers_it_and_else_taken_from_the_pair():
    class DepthFirst(PairSource):
        def __len__(self):
            return 5

        def load(self, index):
            raise AssertionError("the image need not be decoded")

        def load_depth(self, index):
            return index * 10

    assert PairSubset(DepthFirst(), [4]).load_depth(0) == 40
    source = array_source(2)
    assert source.load_depth(1) is source.pairs[1][1]
