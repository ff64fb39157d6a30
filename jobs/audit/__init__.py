"""Tells from an output directory how its job stands and what is wrong with it, and changes nothing there."""
