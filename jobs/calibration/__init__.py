"""What `crossray calibrate` does: labelled pairs -> scores -> scale and bias, and how far scores can be believed."""
