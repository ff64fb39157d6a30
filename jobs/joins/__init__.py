"""Rows that find each other by a key, on many machines."""
