"""`crossray mine`: hard negatives for rows of queries and their right passages."""
