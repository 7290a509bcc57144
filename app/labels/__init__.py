"""Wrong labels: networks trained on folds, and the images that they take for another class."""
