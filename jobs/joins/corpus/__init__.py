"""Documents that are ids get their texts from a corpus."""
