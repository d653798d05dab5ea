"""States as trees: leaves by name, and a new tree of the same form."""

from mulligan.training.state_tree import leaves, mapped

TREE = {"states": [{"state": {0: {"step": 1.0}}, "betas": (0.9, 0.95)}], "ledger": [], "none": None}


def test_leaves_are_named_by_their_way_from_the_root() -> None:
    assert dict(leaves(TREE)) == {
        "states.0.state.0.step": 1.0, "states.0.betas.0": 0.9, "states.0.betas.1": 0.95, "none": None
    }  # fmt: skip


def test_a_mapped_tree_is_a_new_one_of_the_same_form() -> None:
    doubled = mapped(TREE, lambda name, leaf: leaf if leaf is None else (name, 2 * leaf))
    assert doubled["states"][0]["state"] == {0: {"step": ("states.0.state.0.step", 2.0)}}
    assert doubled["states"][0]["betas"] == (("states.0.betas.0", 1.8), ("states.0.betas.1", 1.9))
    same = mapped(TREE, lambda _, leaf: leaf)
    assert same == TREE
    assert same["states"][0] is not TREE["states"][0]
