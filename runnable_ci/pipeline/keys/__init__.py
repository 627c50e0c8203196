"""Keys of the pipeline file that few files have."""
