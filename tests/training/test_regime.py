"""A part's settings, as the detector's regime knows them."""

from mulligan.training.optimizers import AdamWRecipe
from mulligan.training.regime import settings_of


class Own(AdamWRecipe):
    """Holds an object."""

    def __init__(self) -> None:
        super().__init__(lr=0.1, betas=[0.9, 0.95])
        self.choose = lambda name: "embedding" in name
        self.inner = AdamWRecipe(lr=0.1, betas=[0.9, 0.95])


def test_an_object_in_a_part_of_ones_own_has_no_address() -> None:
    settings = settings_of(Own())
    assert settings == settings_of(Own())
    assert settings["class"] == "tests.training.test_regime.Own"
    assert (settings["choose"], settings["inner"], settings["lr"]) == ("function", "AdamWRecipe", 0.1)


def test_a_part_of_mulligan_is_its_settings() -> None:
    recipe = AdamWRecipe(lr=0.1, betas=[0.9, 0.95])
    assert settings_of(recipe) == vars(recipe)
