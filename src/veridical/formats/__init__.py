"""Where records come from: the picture world, a folder of images, a file of records."""
