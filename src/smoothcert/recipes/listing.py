"""Recipes in words: what there is, and what each takes."""

from collections.abc import Sequence

from smoothcert.recipes.recipe import Recipe


def listing(recipes: Sequence[Recipe]) -> str:
    """Titles, rows, and what each scale takes."""
    blocks = []
    for recipe in recipes:
        scales = [f"  {name}: {scale.about.strip()}" for name, scale in recipe.scales.items()]
        blocks.append("\n".join([f"{recipe.name}: {recipe.title} ({recipe.source})",
                                 f"  rows: {', '.join(row.name for row in recipe.rows)}", *scales]))
    return "\n\n".join(blocks)
