"""Compares what two jobs made of the same lists: how much they agree, and where they do not."""
