"""A job from what it was told to its summary."""
