"""The recipes that exist. To add one: write one file that defines a `Recipe`, and name it here."""

from data_recipes import cyclic, pairs
from data_recipes.recipe import Recipe
from data_recipes.shapes import recipe as shapes
from prefrm.errors import ConfigError

__all__ = ["RECIPES", "get_recipe"]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (shapes.RECIPE, cyclic.RECIPE, pairs.RECIPE)}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises `ConfigError`, which lists the names."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]
