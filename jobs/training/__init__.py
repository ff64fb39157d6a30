"""Training on Ray, a room for each of its commands: `crossray mine` and `crossray label` make rows, `train` learns."""
