"""A table of rows becomes a table of answered rows."""
