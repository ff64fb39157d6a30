"""The output directory of a job: a module for each thing that lies in it."""
