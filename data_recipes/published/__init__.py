"""Recipes for datasets that others publish: each is a mapping from a row to judgements."""
