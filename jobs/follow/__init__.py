"""`--follow`: a job whose input goes on."""
