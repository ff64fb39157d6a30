"""Logits that runs leave, for later runs."""
