"""A pipeline as the jobs of a GitHub workflow. Pure: the same pipeline file gives the same workflow, byte for byte."""
