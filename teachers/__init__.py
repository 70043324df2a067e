"""Recipes of the bundled teachers, and their weights."""
