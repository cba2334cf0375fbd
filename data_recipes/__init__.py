"""Recipes: from a source of preferences to a dataset of `prefrm.records`.

Of prefrm this package imports `records`, `media` and `errors` only. `registry` lists the recipes.
"""
