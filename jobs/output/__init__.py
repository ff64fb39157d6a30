"""The output directory of a job, with a module for each thing that lies in it."""
