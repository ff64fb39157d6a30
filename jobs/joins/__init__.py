"""Brings rows with the same key together, on many machines: ids and their texts, pairs of the same group."""
