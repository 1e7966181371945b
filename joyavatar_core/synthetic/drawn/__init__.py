"""Drawn people: characters, their figure and their mouths."""
