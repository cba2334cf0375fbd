"""The recipes that exist. To add one: write one file that defines a `RECIPE`, and name it here."""

from data_recipes import collected, corrected, cyclic, folder, pairs, table, trl
from data_recipes.published import (
    agiqa3k,
    editreward,
    editreward_bench,
    editscore_bench,
    genai_bench,
    genai_bench_ratings,
    geneval,
    hpdv2,
    hpdv3,
    hpdv3_plus,
    imagereward,
    llava_reward,
    mm_rlhf,
    mmrb2,
    multimodal_rewardbench,
    open_image_preferences,
    pickapic,
    rapidata,
    rapidata_rich,
    richhf,
    rlaif_v,
    tifa,
    unifiedreward,
    videoalign,
    videodpo,
    videofeedback,
    vl_rewardbench,
)
from data_recipes.recipe import Recipe
from data_recipes.shapes import clips, criteria, edits, questions
from data_recipes.shapes import recipe as shapes
from prefrm.errors import ConfigError

__all__ = ["RECIPES", "get_recipe"]

DRAWN = (shapes, edits, clips, questions, criteria, cyclic)
GENERAL = (pairs, table, trl, folder, collected, corrected)
PUBLISHED = (
    pickapic,
    hpdv2,
    hpdv3,
    hpdv3_plus,
    imagereward,
    llava_reward,
    genai_bench,
    genai_bench_ratings,
    rapidata,
    rapidata_rich,
    open_image_preferences,
    unifiedreward,
    richhf,
    agiqa3k,
    tifa,
    geneval,
    mmrb2,
    editreward,
    editreward_bench,
    editscore_bench,
    videoalign,
    videofeedback,
    videodpo,
    vl_rewardbench,
    multimodal_rewardbench,
    rlaif_v,
    mm_rlhf,
)

RECIPES: dict[str, Recipe] = {module.RECIPE.name: module.RECIPE for module in (*DRAWN, *GENERAL, *PUBLISHED)}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises `ConfigError`, which lists the names."""
    if "/" in name:
        raise ConfigError(
            f"{name} is not a recipe but a source; name the recipe that reads it, such as "
            f"table --set source={name} (`prefrm data list` shows all)"
        )
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]
