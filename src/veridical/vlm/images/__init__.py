"""Open image files, and show an image as a view: clean, perturbed, or with tokens masked."""
