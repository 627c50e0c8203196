"""Commands that write workflows of GitHub Actions."""
