"""Rungs that lost, kept runnable: what was tried on the way to the product, and its numbers."""
