"""Pair rows in any order become lists."""
