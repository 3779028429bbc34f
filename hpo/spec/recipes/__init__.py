"""Recipes: settings of published trainings, one per file, which a study takes as defaults (`task: {recipe: NAME}`)."""

from .library import Recipe, list_recipes, recipe
from .resolve import resolve_recipe

__all__ = ["Recipe", "list_recipes", "recipe", "resolve_recipe"]
