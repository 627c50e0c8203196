"""What a job says on the pull request that it runs for."""
