"""What a step keeps of its own work while it runs, so that its next attempt resumes it."""
