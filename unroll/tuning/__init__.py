"""Choosing between recipes: what each change of one is worth."""
