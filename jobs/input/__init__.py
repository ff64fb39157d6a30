"""Which rows of which files a job takes, and how they are read."""
