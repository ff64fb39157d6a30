"""`--follow`: a job that goes on with the files that come into its input."""
