"""Integer networks made of float32 ones, for base classifiers that run faster."""
