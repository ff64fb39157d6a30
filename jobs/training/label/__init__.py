"""`crossray label`: a teacher's scores beside the documents of every list."""
