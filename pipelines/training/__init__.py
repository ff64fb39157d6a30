"""Training a cross-encoder of one's own. Nothing at run time imports this package."""
