"""Pictures from numbers: the canvas, grids of images, curves."""
