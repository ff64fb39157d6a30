"""Ranks benchmark sets with several models on Ray, and says which one is better, and how surely."""
