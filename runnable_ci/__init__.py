"""Reproducible, resumable pipeline runs for teams that live in GitHub Actions."""
