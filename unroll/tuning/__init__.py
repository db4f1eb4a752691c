"""Choosing between recipes: search, and what each change of one is worth."""
